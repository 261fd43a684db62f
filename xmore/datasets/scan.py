"""The images that a dataset actually contains: listed, hashed and checked."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from xmore.datasets.card import DatasetCard, named_classes
from xmore.datasets.sources import (
    CoopSource,
    FolderSource,
    Listing,
    TableSource,
    folder_listing,
    plain,
)
from xmore.files.digests import FactCache, digest_file
from xmore.files.errors import DatasetError
from xmore.files.progress import track
from xmore.images.decode import ImageRejected, check_image
from xmore.images.readers import Files, ImageReader


@dataclass(frozen=True)
class QueryImage:
    """A readable test image."""

    uri: str  # relative to the card's root, with forward slashes
    label: int
    sha256: str


@dataclass(frozen=True)
class Scan:
    """The contents of a dataset. Memory: about 300 bytes per image."""

    class_names: list[str]
    queries: list[QueryImage]  # sorted by uri; the position is the query_id
    rejected: list[tuple[str, str]]  # (uri, cause)


def scan(card: DatasetCard, cache: Path, max_rejected: float) -> Scan:
    """List, hash and check every image of a dataset.

    Unchanged files are not read again (`cache`). Unusable images are returned with their causes.
    Raises DatasetError if their share is above `max_rejected`.
    """
    names, found = listing(card)
    uris = sorted(found.labels)
    facts = FactCache(cache, card.root, "images", found.reader.file_of)
    queries, rejected = [], []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        checked = pool.map(lambda uri: (uri, _check(found.reader, uri, facts)), uris)
        for uri, fact in track(checked, f"{card.name} reading", "image", len(uris)):
            if "cause" in fact:
                rejected.append((uri, fact["cause"]))
            else:
                queries.append(QueryImage(uri, found.labels[uri], fact["sha256"]))
    facts.save(uris)
    if len(rejected) > max_rejected * len(uris):
        causes = ", ".join(f"{n} {c}" for c, n in Counter(c for _, c in rejected).most_common())
        raise DatasetError(
            f"dataset `{card.name}`: {len(rejected)} of {len(uris)} images cannot be used "
            f"({causes}), the first is {card.root / rejected[0][0]}. "
            "Fix them or raise `max_rejected`."
        )
    return Scan(names, queries, rejected)


def listing(card: DatasetCard) -> tuple[list[str], Listing]:
    """Return the class names in label order, and all test images, without reading any.

    Raises DatasetError if the folder does not match the card.
    """
    if not card.root.is_dir():
        todo = f"see `xmore datasets get {card.name}`" if card.folder else "correct `root`"
        raise DatasetError(f"dataset `{card.name}`: no folder {card.root}; {todo}.")
    try:
        if isinstance(card.source, FolderSource):
            folders = _class_folders(card)
            names = [name for _, name in folders]
            found = folder_listing(card.root, [folder for folder, _ in folders])
        else:
            if isinstance(card.source, CoopSource):
                _check_split(card.root / card.source.split, card.source.sha256)
            given = named_classes(card)
            own = [name for _, name in given] if given else None
            found = card.source.listing(card.root, own)
            names = own or [plain(name) for name in found.names or []]
        _check_names(names, published=card.expected is not None)
    except DatasetError as error:
        raise DatasetError(f"dataset `{card.name}`: {error}") from error
    _check_counts(card, len(names), len(found.labels))
    return names, found


def open_images(card: DatasetCard) -> ImageReader:
    """Return a reader of the card's images by uri. Raises DatasetError."""
    if isinstance(card.source, FolderSource | CoopSource | TableSource):
        return Files(card.root)
    return listing(card)[1].reader


def _class_folders(card: DatasetCard) -> list[tuple[str, str]]:
    """Return (folder, class name) in label order; raise DatasetError if folders and card differ."""
    existing = sorted(p.name for p in card.root.iterdir() if p.is_dir() and p.name[0] not in "._")
    folders = named_classes(card)
    if folders is None:
        folders = [(folder, plain(folder)) for folder in existing]
    else:
        differ = {folder for folder, _ in folders} ^ set(existing)
        if differ:
            raise DatasetError(
                f"`classes` and the folders of {card.root} differ in "
                f"{', '.join(sorted(differ)[:5])}. Make them agree."
            )
    if len(folders) < 2:
        raise DatasetError(
            f"{len(folders)} class folders in {card.root}; at least two classes are needed, with "
            "one folder each."
        )
    return folders


def _check_names(names: list[str], published: bool) -> None:
    """Raise DatasetError for a class without a name, or two of one name.

    ImageNet's published names have such pairs; a card of a published list states its counts.
    """
    labels: dict[str, int] = {}
    for label, name in enumerate(names):
        if not name:
            raise DatasetError(f"class {label} has no name.")
        if labels.setdefault(name, label) != label and not published:
            raise DatasetError(
                f"two classes are named {name!r}, {labels[name]} and {label}. Rename one, or add "
                "`expected` to the card if the dataset's own list has both."
            )


def _check_split(path: Path, sha256: str | None) -> None:
    if sha256 is not None and path.is_file() and (found := digest_file(path)) != sha256:
        raise DatasetError(
            f"{path}: is not the published split: its sha256 is {found[:12]}..., not "
            f"{sha256[:12]}.... Download it again."
        )


def _check_counts(card: DatasetCard, classes: int, images: int) -> None:
    if card.expected is None:
        return
    for what, wanted, got in (
        ("classes", card.expected.classes, classes),
        ("test images", card.expected.images, images),
    ):
        if wanted != got:
            raise DatasetError(
                f"dataset `{card.name}`: {card.root} has {got} {what}, the card expects {wanted}. "
                "Complete the dataset; for a part of it write your own card."
            )


def _check(reader: ImageReader, uri: str, facts: FactCache) -> dict[str, str]:
    try:
        known = facts.get(uri)
        if known is not None:
            return known
        data = reader.read(uri)
    except OSError:
        return {"cause": "unreadable file"}
    except ImageRejected as error:
        return {"cause": error.cause}
    fact = {"sha256": hashlib.sha256(data).hexdigest()}
    try:
        check_image(data)
    except ImageRejected as error:
        fact = {"cause": error.cause}
    facts.put(uri, fact)
    return fact
