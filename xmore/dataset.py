"""Test datasets: a YAML card, and the images that are really there."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from xmore.config import NAME, explain, load_yaml
from xmore.digest import FactCache, digest_file
from xmore.errors import ConfigError, DatasetError
from xmore.images import ImageRejected, check_image
from xmore.paths import PROJECT_ROOT
from xmore.progress import track
from xmore.readers import Files, ImageReader
from xmore.sources import (
    CoopSource,
    FolderSource,
    Listing,
    Source,
    TableSource,
    folder_listing,
    plain,
)

CARDS = PROJECT_ROOT / "data"
PAPERS_PROMPT = "a photo of a {}."
DATA_ROOT = CARDS / "datasets"  # where datasets lie that are to be got, unless a config says


class Expected(BaseModel, frozen=True, extra="forbid"):
    """What a whole dataset holds; anything else is not the published test set."""

    classes: int = Field(ge=2, description="Classes.")
    images: int = Field(ge=1, description="Test images.")
    source: str = Field("", description="Where these numbers are from.")


class Obtain(BaseModel, frozen=True, extra="forbid"):
    """How a dataset is to be got, by hand; what a command can get, its source says."""

    page: str = Field("", description="Its authors' page.")
    steps: list[str] = Field([], description="What to do, step by step, in the dataset's folder.")


class DatasetCard(BaseModel, frozen=True, extra="forbid"):
    """A test dataset: where its images and labels are, and what it should hold."""

    name: str = Field(pattern=NAME, description="In configs, tables and the store.")
    version: int = Field(1, ge=1, description="Of the card: it rises when its meaning changes.")
    task: Literal["classification"] = "classification"
    title: str = Field("", description="What it is, in a line.")
    paper_name: str | None = Field(None, description="What the paper's tables call it.")
    licence: str = Field("", description="Of the images, as far as it is known.")
    root: Path = Field(Path(), description="Holds the images; relative to the card.")
    folder: str | None = Field(
        None, description="Instead of `root`: its folder under the config's `data_root`."
    )
    source: Source = Field(FolderSource(), description="Where its images and labels are.")
    classes: dict[str, str] | Path | None = Field(
        None,
        description="Folder -> class name; or a text file with a name a line, for folders "
        "`folder<TAB>name`; none: the source's own, of folders all, underscores become spaces.",
    )
    alternatives: dict[str, Path] = Field(
        default_factory=dict, description="Other files of class names, by a name for a config."
    )
    expected: Expected | None = Field(None, description="What it holds when it is whole.")
    prompt: str = Field(PAPERS_PROMPT, description="`{}` is the class name.")
    obtain: Obtain = Obtain()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.folder is None) == ("root" not in self.model_fields_set):
            raise ValueError("name either `root` or `folder`")
        if self.folder is not None and (self.folder[:1] in ("", "/") or ".." in self.folder):
            raise ValueError(f"`folder` must lie under `data_root`, got {self.folder!r}")
        if "{}" not in self.prompt:
            raise ValueError(f"`prompt` needs `{{}}` for the class name, got {self.prompt!r}")
        return self


@dataclass(frozen=True)
class QueryImage:
    """A readable test image."""

    uri: str  # relative to the card's root, with forward slashes
    label: int
    sha256: str


@dataclass(frozen=True)
class Scan:
    """What a dataset really holds. About 300 bytes an image."""

    class_names: list[str]
    queries: list[QueryImage]  # sorted by uri: the position is the query_id
    rejected: list[tuple[str, str]]  # (uri, cause)


def load_card(
    name_or_path: str, data_root: Path | None = None, class_names: str | None = None
) -> DatasetCard:
    """A card by its name in data/, or by its path, with its paths made absolute.

    `data_root` is where datasets lie whose card names a `folder`; `class_names` one of the card's
    alternatives. Raises ConfigError.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = CARDS / f"{name_or_path}.yaml"
        if not path.is_file():
            raise ConfigError(
                f"dataset `{name_or_path}`: no card of that name in {CARDS} "
                f"(there: {', '.join(all_cards())}). Write one, or give the path of its YAML."
            )
    try:
        card = DatasetCard.model_validate(load_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, DatasetCard)}") from error
    base = path.resolve().parent
    root = (data_root or DATA_ROOT) / card.folder if card.folder else base / card.root.expanduser()
    changes: dict[str, object] = {"root": root.resolve()}
    if class_names is not None:
        if class_names not in card.alternatives:
            there = ", ".join(card.alternatives) or "none"
            raise ConfigError(
                f"{path}: has no class names `{class_names}` (there: {there}). Correct "
                "`class_names`, or take it out for the card's own."
            )
        changes["classes"] = base / card.alternatives[class_names]
    elif isinstance(card.classes, Path):
        changes["classes"] = base / card.classes
    return card.model_copy(update=changes)


def all_cards() -> list[str]:
    """The names of the cards in data/."""
    return sorted(card.stem for card in CARDS.glob("*.yaml"))


def scan(card: DatasetCard, cache: Path, max_rejected: float) -> Scan:
    """List, hash and check every image of a dataset; raises DatasetError.

    Unchanged files are not read again (`cache`). An image that cannot be used is set aside with
    its cause; more than `max_rejected` of them stop the run.
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
            "Mend them or raise `max_rejected`."
        )
    return Scan(names, queries, rejected)


def listing(card: DatasetCard) -> tuple[list[str], Listing]:
    """Class names in label order, and all test images, none of them read yet.

    Raises DatasetError where what is there is not what the card says.
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
    except DatasetError as error:
        raise DatasetError(f"dataset `{card.name}`: {error}") from error
    _check_counts(card, len(names), len(found.labels))
    return names, found


def open_images(card: DatasetCard) -> ImageReader:
    """What reads the card's images by their uri; raises DatasetError."""
    if isinstance(card.source, FolderSource | CoopSource | TableSource):
        return Files(card.root)
    return listing(card)[1].reader


def named_classes(card: DatasetCard) -> list[tuple[str, str]] | None:
    """(folder or '', class name) in label order, as the card has them; raises DatasetError."""
    if card.classes is None:
        return None
    if isinstance(card.classes, dict):
        pairs = [(folder, plain(name)) for folder, name in card.classes.items()]
        _check_distinct(pairs)
        return pairs
    try:
        lines = card.classes.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{card.classes}: class names cannot be read ({error}).") from error
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    return [(row[0] if len(row) > 1 else "", plain(row[-1])) for row in rows]


def _class_folders(card: DatasetCard) -> list[tuple[str, str]]:
    """(folder, class name) in label order; folders and card must agree."""
    there = sorted(p.name for p in card.root.iterdir() if p.is_dir() and p.name[0] not in "._")
    folders = named_classes(card)
    if folders is None:
        folders = [(folder, plain(folder)) for folder in there]
        _check_distinct(folders)
    else:
        differ = {folder for folder, _ in folders} ^ set(there)
        if differ:
            raise DatasetError(
                f"`classes` and the folders of {card.root} differ in "
                f"{', '.join(sorted(differ)[:5])}. Make them agree."
            )
    if len(folders) < 2:
        raise DatasetError(
            f"{len(folders)} class folders in {card.root}; it takes at least two classes, one "
            "folder each."
        )
    return folders


def _check_distinct(pairs: list[tuple[str, str]]) -> None:
    """Published lists may name two classes alike (ImageNet's do); what users write may not."""
    twice = [name for name, n in Counter(name for _, name in pairs).items() if n > 1]
    if twice:
        raise DatasetError(f"two classes are named {twice[0]!r}.")


def _check_split(path: Path, sha256: str | None) -> None:
    if sha256 is not None and path.is_file() and (found := digest_file(path)) != sha256:
        raise DatasetError(
            f"{path}: is not the published split: its sha256 is {found[:12]}..., not "
            f"{sha256[:12]}.... Get it again."
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
                "Complete it; for a part of it write a card of your own."
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
