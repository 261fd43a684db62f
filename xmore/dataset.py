"""Test datasets: a YAML card, and the images that its folder really holds."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from xmore.config import explain, load_yaml
from xmore.digest import FactCache
from xmore.errors import ConfigError, DatasetError
from xmore.images import IMAGE_SUFFIXES, ImageRejected, check_image, read_image
from xmore.paths import PROJECT_ROOT
from xmore.progress import track

CARDS = PROJECT_ROOT / "data"


class DatasetCard(BaseModel, frozen=True, extra="forbid"):
    """A test dataset: one folder a class, under one root."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    version: int = Field(1, ge=1)
    title: str = ""
    licence: str = ""
    root: Path = Field(description="Holds one folder a class; relative to the card.")
    classes: dict[str, str] | None = Field(
        None, description="Folder -> class name; none: every folder, underscores become spaces."
    )


@dataclass(frozen=True)
class QueryImage:
    """A readable test image."""

    uri: str  # relative to the card's root, with forward slashes
    label: int
    sha256: str


@dataclass(frozen=True)
class Scan:
    """What a dataset's folder holds. About 300 bytes an image."""

    class_names: list[str]
    queries: list[QueryImage]  # sorted by uri: the position is the query_id
    rejected: list[tuple[str, str]]  # (uri, cause)


def load_card(name_or_path: str) -> DatasetCard:
    """A card by its name in data/, or by its path. Raises ConfigError."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = CARDS / f"{name_or_path}.yaml"
        if not path.is_file():
            there = ", ".join(sorted(card.stem for card in CARDS.glob("*.yaml")))
            raise ConfigError(
                f"dataset `{name_or_path}`: no card of that name in {CARDS} (there: {there}). "
                "Write one, or give the path of its YAML."
            )
    try:
        card = DatasetCard.model_validate(load_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, DatasetCard)}") from error
    root = (path.resolve().parent / card.root.expanduser()).resolve()
    return card.model_copy(update={"root": root})


def scan(card: DatasetCard, cache: Path, max_rejected: float) -> Scan:
    """List, hash and check every image of a dataset; raises DatasetError.

    Unchanged files are not read again (`cache`). An image that cannot be used is set aside with
    its cause; more than `max_rejected` of them stop the run.
    """
    folders = class_folders(card)
    names = [name for _, name in folders]
    files = {
        uri: label for label, (folder, _) in enumerate(folders) for uri in _images(card, folder)
    }
    facts = FactCache(cache, card.root, "images")
    queries, rejected = [], []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        checked = pool.map(lambda uri: (uri, _check(card.root, uri, facts)), sorted(files))
        for uri, fact in track(checked, f"{card.name} reading", "image", len(files)):
            if "cause" in fact:
                rejected.append((uri, fact["cause"]))
            else:
                queries.append(QueryImage(uri, files[uri], fact["sha256"]))
    facts.save(sorted(files))
    if len(rejected) > max_rejected * len(files):
        causes = ", ".join(f"{n} {c}" for c, n in Counter(c for _, c in rejected).most_common())
        raise DatasetError(
            f"dataset `{card.name}`: {len(rejected)} of {len(files)} images cannot be used "
            f"({causes}), the first is {card.root / rejected[0][0]}. "
            "Mend them or raise `max_rejected`."
        )
    return Scan(names, queries, rejected)


def class_folders(card: DatasetCard) -> list[tuple[str, str]]:
    """(folder, class name) in label order; raises DatasetError where folders and card differ."""
    if not card.root.is_dir():
        raise DatasetError(f"dataset `{card.name}`: no folder {card.root}. Correct `root`.")
    there = sorted(p.name for p in card.root.iterdir() if p.is_dir() and p.name[0] not in "._")
    if card.classes is None:
        folders = [(folder, folder.replace("_", " ")) for folder in there]
    else:
        folders = [(folder, name.replace("_", " ")) for folder, name in card.classes.items()]
        differ = set(card.classes) ^ set(there)
        if differ:
            raise DatasetError(
                f"dataset `{card.name}`: `classes` and the folders of {card.root} differ in "
                f"{', '.join(sorted(differ)[:5])}. Make them agree."
            )
    twice = [name for name, n in Counter(name for _, name in folders).items() if n > 1]
    if twice:
        raise DatasetError(f"dataset `{card.name}`: two classes are named {twice[0]!r}.")
    if len(folders) < 2:
        raise DatasetError(
            f"dataset `{card.name}`: {len(folders)} class folders in {card.root}; it takes at "
            "least two classes, one folder each."
        )
    return folders


def _images(card: DatasetCard, folder: str) -> list[str]:
    root = card.root / folder
    if not root.resolve().is_relative_to(card.root):
        raise DatasetError(f"dataset `{card.name}`: class folder {root} leads out of the root.")
    found = [
        path.relative_to(card.root).as_posix()
        for path in root.rglob("*")  # does not follow links to folders: no loops
        if path.suffix.lower() in IMAGE_SUFFIXES and (path.is_file() or path.is_symlink())
    ]
    if not found:
        raise DatasetError(f"dataset `{card.name}`: no images in {root}.")
    return found


def _check(root: Path, uri: str, facts: FactCache) -> dict[str, str]:
    path = root / uri
    try:
        known = facts.get(uri)
        if known is not None:
            return known
        if not path.resolve().is_relative_to(root):
            return {"cause": "link out of the root"}
        data = read_image(path)
    except (OSError, RuntimeError):  # dangling links and loops
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
