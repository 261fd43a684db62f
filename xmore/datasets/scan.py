"""The images that a dataset actually contains: listed, hashed and checked."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from unicodedata import normalize

from xmore.datasets.card import DatasetCard, named_classes
from xmore.datasets.folders import class_folders, folder_listing
from xmore.datasets.names import plain
from xmore.datasets.sources import CoopSource, FolderSource, Listing, TableSource
from xmore.files.digests import FactCache, digest_file, digest_text
from xmore.files.errors import DatasetError, is_shortage
from xmore.files.progress import track
from xmore.images.decode import DAMAGED, ImageRejected, check_image
from xmore.images.readers import Files, ImageReader

VERDICTS = "images-2"  # of the cache; the number increases when check_image decides otherwise


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
    notes: list[str] = field(default_factory=list)  # what may be meant otherwise, a line each


def scan(card: DatasetCard, cache: Path, max_rejected: float, limit: int | None = None) -> Scan:
    """List, hash and check every image of a dataset, or those of its `sample` of `limit` images.

    Unchanged files are not read again (`cache`). Unusable images are returned with their causes.
    Raises DatasetError if their share is above `max_rejected`.
    """
    names, found = listing(card)
    listed_uris = sorted(found.labels)
    if limit is not None and limit < len(found.labels):
        note = f"a trial run, of {limit} of the {len(found.labels)} images that it lists (`limit`)."
        labels = sample(found.labels, limit)
        found = replace(found, labels=labels, rejected=[], notes=[*found.notes, note])
    uris = sorted(found.labels)
    facts = FactCache(cache, card.root, VERDICTS, found.reader.file_of)
    queries, rejected = [], found.rejected.copy()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        checked = pool.map(lambda uri: (uri, _check(found.reader, uri, facts)), uris)
        for uri, fact in track(checked, f"{card.name} reading", "image", len(uris)):
            if "cause" in fact:
                rejected.append((uri, fact["cause"]))
            else:
                queries.append(QueryImage(uri, found.labels[uri], fact["sha256"]))
    facts.save(listed_uris)  # also what is known of images that are not in a sample
    rejected.sort()
    listed = len(queries) + len(rejected)
    if len(rejected) > max_rejected * listed:
        causes = ", ".join(f"{n} {c}" for c, n in Counter(c for _, c in rejected).most_common())
        raise DatasetError(
            f"dataset `{card.name}`: {len(rejected)} of {listed} images cannot be used "
            f"({causes}), the first is {card.root / rejected[0][0]}. "
            "Fix them or raise `max_rejected`."
        )
    return Scan(names, queries, rejected, found.notes + _in_two_classes(queries))


def sample(labels: dict[str, int], limit: int) -> dict[str, int]:
    """Return `limit` of the images (uri -> label), nearly in proportion to their classes.

    Within a class they are taken in the order of a hash of their uri: the same images every time,
    and all those of any smaller sample.
    """
    sizes, taken = Counter(labels.values()), Counter[int]()
    places = []
    for hashed, uri in sorted((digest_text(uri), uri) for uri in labels):
        label = labels[uri]
        places.append(((taken[label] + 0.5) / sizes[label], hashed, uri))
        taken[label] += 1
    return {uri: labels[uri] for *_, uri in sorted(places)[:limit]}


def set_aside(card: DatasetCard, cache: Path, causes: dict[str, str]) -> None:
    """Let the next `scan` reject images (uri -> cause) that a later stage could not decode.

    Those that failed otherwise are read again: a file may change and keep its size and time.
    """
    reader = open_images(card)
    facts = FactCache(cache, card.root, VERDICTS, reader.file_of)
    for uri, cause in causes.items():
        if cause == DAMAGED:
            facts.put(uri, {"cause": cause})
        else:
            facts.drop(uri)
    facts.save([*facts.facts])


def listing(card: DatasetCard) -> tuple[list[str], Listing]:
    """Return the class names in label order, and all test images, without reading any.

    Images of a retrieval card have no classes, and all the label 0.
    Raises DatasetError if the folder does not match the card.
    """
    if not card.root.is_dir():
        todo = f"see `xmore datasets get {card.name}`" if card.folder else "correct `root`"
        raise DatasetError(f"dataset `{card.name}`: no folder {card.root}; {todo}.")
    try:
        if card.captions:
            return [], card.captions.listing(card.root, card.follow_links)
        if isinstance(card.source, FolderSource):
            folders, notes = _class_folders(card)
            names = [name for _, name in folders]
            found = folder_listing(card.root, [f for f, _ in folders], card.follow_links)
            found.notes[:0] = notes
        else:
            if isinstance(card.source, CoopSource):
                _check_split(card.root / card.source.split, card.source.sha256)
            given = named_classes(card)
            own = [name for _, name in given] if given else None
            found = card.source.listing(card.root, own)
            names = own or [plain(name) for name in found.names or []]
            if isinstance(found.reader, Files):
                found = replace(found, reader=open_images(card))
        _check_names(names, published=card.expected is not None)
    except DatasetError as error:
        raise DatasetError(f"dataset `{card.name}`: {error}") from error
    _check_counts(card, len(names), len(found.labels) + len(found.rejected))
    return names, found


def open_images(card: DatasetCard) -> ImageReader:
    """Return a reader of the card's images by uri. Raises DatasetError."""
    if isinstance(card.source, FolderSource | CoopSource | TableSource):
        return Files(card.root, card.follow_links)
    return listing(card)[1].reader


def _class_folders(card: DatasetCard) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (folder, class name) in label order, and notes on the folders.

    Raises DatasetError if folders and card differ.
    """
    folders = named_classes(card)
    existing, notes = class_folders(card.root, [folder for folder, _ in folders or []])
    if folders is None:
        folders = [(folder, plain(folder)) for folder in existing]
    else:
        # An accent may be written in two forms, of which macOS prefers the other.
        forms = {normalize("NFC", name): name for name in existing}
        folders = [(forms.get(normalize("NFC", folder), folder), name) for folder, name in folders]
        twice = [name for name, n in Counter(f for f, _ in folders).items() if name and n > 1]
        if twice:
            raise DatasetError(f"`classes` names the folder {twice[0]} twice.")
        if not any(folder for folder, _ in folders):
            raise DatasetError(
                f"{card.classes}: names no folders. Write `folder<TAB>name` in each line."
            )
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
    return folders, notes


def _in_two_classes(queries: list[QueryImage]) -> list[str]:
    """Return a note on images whose bytes are in two classes, of which one must be wrong."""
    first: dict[str, QueryImage] = {}
    twice = 0
    for query in queries:
        known = first.setdefault(query.sha256, query)
        if known.label != query.label:
            twice += 1
            example = f"{known.uri} and {query.uri}"
    return [f"images in two classes: {twice}, such as {example}."] if twice else []


def _check_names(names: list[str], published: bool) -> None:
    """Raise DatasetError for a class without a name, or two of one name.

    ImageNet's published names have such pairs; a card of a published list states its counts.
    """
    labels: dict[str, int] = {}
    for label, name in enumerate(names):
        if not name:
            raise DatasetError(f"class {label} has no name.")
        first = labels.setdefault(normalize("NFC", name), label)
        if first != label and not published:
            raise DatasetError(
                f"two classes are named {name!r}, {first} and {label}. Rename one, or add "
                "`expected` to the card if the dataset's own list has both."
            )


def _check_split(path: Path, sha256: str | None) -> None:
    if sha256 is None or not path.is_file():
        return
    if (found := digest_file(path)) != sha256.lower():
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
    except OSError as error:
        if is_shortage(error):
            raise
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
