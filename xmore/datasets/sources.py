"""Five layouts of a dataset's test images, with one interface to list and to read them.

A layout lists its images without decoding them. An image's `uri` is its path under the dataset's
root, or its path in an archive (`test/0.tar/s0000000.jpg`).
"""

from __future__ import annotations

import json
import operator
import os
import posixpath
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from xmore.datasets.names import plain, read_classes
from xmore.datasets.samples import samples
from xmore.datasets.table import NUMBER, numbered, read_images
from xmore.files.errors import DatasetError, cause_of, meant
from xmore.files.paths import is_text
from xmore.files.text import read_text
from xmore.files.yaml import Section
from xmore.images.readers import Files, ImageReader, Tars, TorchvisionImages

MAX_SHARDS = 100_000


@dataclass(frozen=True)
class Listing:
    """The test images of a dataset. Memory: about 250 bytes per image."""

    labels: dict[str, int]  # uri -> label
    names: list[str] | None  # the source's own class names, in label order; None if it has none
    reader: ImageReader
    rejected: list[tuple[str, str]] = field(default_factory=list)  # (uri, cause): cannot be listed
    notes: list[str] = field(default_factory=list)  # what may be meant otherwise, a line each


class _Source(Section):
    """`listing(root, names)` returns all test images under `root`, or raises DatasetError.

    `names` are the card's class names; if None, the source must have its own.
    """


class FolderSource(_Source):
    """One folder per class; the card defines which folders, and their class names."""

    kind: Literal["folder"] = "folder"


class CoopSource(_Source):
    """A split of CoOp's: the list `test` in `split_zhou_*.json`."""

    kind: Literal["coop"]
    split: str = Field(description="The JSON file, relative to the dataset's root.")
    images: str = Field(".", description="Folder under the root; the paths are relative to it.")
    sha256: str | None = Field(None, description="Hash of the JSON file, if known.")

    def listing(self, root: Path, names: list[str] | None) -> Listing:
        path = root / self.split
        try:
            rows = json.loads(path.read_bytes())["test"]
            if not isinstance(rows, list):
                raise TypeError(rows)
        except OSError as error:
            raise DatasetError(
                f"{path}: no split ({error.strerror}). Put the file there."
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DatasetError(f"{path}: not a split of CoOp's: no list `test` in it.") from error
        found = _Rows(path, root)
        own: dict[int, str] = {}
        for number, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != 3:
                row = [None, None, None]
            file, label, name = row
            found.add(f"test[{number}]", self.images, file, label)
            if not isinstance(name, str | int) or not is_text(str(name)):
                raise DatasetError(f"{path}: test[{number}]: no class name: {reprlib.repr(name)}.")
            if own.setdefault(label, str(name)) != str(name) and not names:
                raise DatasetError(
                    f"{path}: test[{number}]: label {label} is both {own[label]!r} and {name!r}. "
                    "Correct it, or give the card `classes`."
                )
        missing = next((label for label in range(len(own)) if label not in own), None)
        if missing is not None and not names:
            raise DatasetError(
                f"{path}: no image has label {missing}, so it has no name. Give the card `classes`."
            )
        theirs = [own[label] for label in range(len(own))] if missing is None else None
        return Listing(found.checked(names or theirs), theirs, Files(root))


class TableSource(_Source):
    """A Parquet, CSV, TSV or JSONL file; each row has a path and a label (number or class name)."""

    kind: Literal["table"]
    file: str = Field(description="The table, relative to the dataset's root.")
    path: str = Field("path", description="Column of image paths, in the root.")
    label: str = Field("label", description="Column of labels: numbers from 0, or class names.")

    def listing(self, root: Path, names: list[str] | None) -> Listing:
        file = root / self.file
        rows = read_images(file, self.path, self.label)
        labels = [label and plain(label) for _, label in rows]
        theirs = None
        if any(label is not None and not NUMBER.fullmatch(label) for label in labels):
            theirs = sorted({label for label in labels if label})
        numbers = numbered(file, labels, names or theirs)
        found = _Rows(file, root)
        for number, ((path, _), label) in enumerate(zip(rows, numbers, strict=True)):
            found.add(f"row {number}", ".", path, label)
        return Listing(found.checked(names or theirs), theirs, Files(root))


class WebdatasetSource(_Source):
    """CLIP_benchmark's own layout: `<split>/nshards.txt`, `<split>/<i>.tar`, `classnames.txt`."""

    kind: Literal["webdataset"]
    split: str = Field("test", description="Folder of the tars.")
    url: str | None = Field(
        None, description="URL of the folder that contains `split`, for `xmore datasets get`."
    )

    def listing(self, root: Path, names: list[str] | None) -> Listing:
        found = _Rows(root)
        places: dict[str, tuple[str, int, int]] = {}
        rejected: list[tuple[str, str]] = []
        count = shard_count(root / self.split)
        for shard in range(count):
            tar = f"{self.split}/{shard}.tar"
            for member, label in samples(root / tar):
                uri = f"{tar}/{member.name}"  # only a name, whatever path it looks like
                if isinstance(label, str):
                    rejected.append((uri, label))
                else:
                    found.labels[uri], found.places[posixpath.normpath(uri)] = label, uri
                    places[uri] = (tar, member.offset, member.size)
        theirs = None
        if (root / "classnames.txt").is_file():
            rows = read_classes(root / "classnames.txt", DatasetError, "it", numbers=True)
            theirs = [name for _, name in rows]
        if not found.labels and rejected:
            raise DatasetError(
                f"{root}: none of its {len(rejected)} samples can be used; the first is "
                f"{rejected[0][0]} ({rejected[0][1]})."
            )
        labels = found.checked(names or theirs)
        read = {f"{shard}.tar" for shard in range(count)}
        others = sorted(p.name for p in (root / self.split).glob("[!.]*.tar") if p.name not in read)
        told = f"`{self.split}/nshards.txt` says {count}; not read are: {', '.join(others[:9])}."
        return Listing(labels, theirs, Tars(root, places), rejected, [told] if others else [])


class TorchvisionSource(_Source):
    """A dataset class of torchvision; only `xmore datasets get` downloads it."""

    kind: Literal["torchvision"]
    dataset: str = Field(description="The class in torchvision.datasets, e.g. FGVCAircraft.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Its arguments, except root and download."
    )

    @field_validator("options")
    @classmethod
    def _no_words_for_truth(cls, options: dict[str, Any]) -> dict[str, Any]:
        for key, value in options.items():
            if str(value).lower() in ("yes", "no", "on", "off"):
                raise ValueError(f"write true or false for `{key}`, got {value}")
        return options

    def open(self, root: Path, **more: Any) -> Any:
        """Return the torchvision dataset. Raises DatasetError."""
        from torchvision import datasets

        kind = getattr(datasets, self.dataset, None)
        if not (isinstance(kind, type) and issubclass(kind, datasets.VisionDataset)):
            raise DatasetError(
                f"torchvision has no dataset `{self.dataset}`."
                f"{meant(self.dataset, datasets.__all__)} Correct `source.dataset`."
            )
        try:
            return kind(root, **self.options, **more)
        except Exception as error:  # each class raises its own errors
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DatasetError(f"{root}: torchvision's {self.dataset} failed: {first}") from error

    def listing(self, root: Path, names: list[str] | None) -> Listing:
        dataset = self.open(root)
        labels = getattr(dataset, "targets", None)
        if labels is None:
            labels = getattr(dataset, "_labels", None)
        if labels is None:
            labels = _labels_of(root, dataset)
        # Of synonyms, which ImageNet has, the first stands for the class.
        theirs = [str(n[0] if isinstance(n, tuple) else n) for n in getattr(dataset, "classes", [])]
        found = _Rows(root)
        for number, label in enumerate(labels):
            found.add(f"item {number}", ".", f"{number:08d}.png", _whole(label))
        return Listing(found.checked(names or theirs), theirs or None, TorchvisionImages(dataset))


def _labels_of(root: Path, dataset: Any) -> list[Any]:
    """Return the labels of a torchvision dataset that has no list of them; decodes every image."""
    try:
        return [dataset[i][1] for i in range(len(dataset))]
    except Exception as error:  # its loader may raise anything
        raise DatasetError(
            f"{root}: torchvision's {type(dataset).__name__} has no list of labels, and its items "
            f"cannot be read ({cause_of(error)})."
        ) from error


def _whole(label: Any) -> Any:
    """Return a number of numpy or torch as Python's; what is no whole number stays."""
    try:
        return operator.index(label)
    except TypeError:
        return label


Source = Annotated[
    FolderSource | CoopSource | TableSource | WebdatasetSource | TorchvisionSource,
    Field(discriminator="kind"),
]


def shard_count(folder: Path) -> int:
    """Return the number in a webdataset's `nshards.txt`. Raises DatasetError."""
    path = folder / "nshards.txt"
    if not path.exists():
        raise DatasetError(f"{path}: no such file. Correct the root, or run `xmore datasets get`.")
    try:
        count = int(read_text(path, DatasetError))
    except ValueError as error:
        raise DatasetError(f"{path}: must contain the number of shards.") from error
    if not 1 <= count <= MAX_SHARDS:
        raise DatasetError(f"{path}: must be in [1, {MAX_SHARDS}], got {count}.")
    return count


class _Rows:
    """Labels by uri, from a file whose rows are each checked."""

    def __init__(self, file: Path, root: Path | None = None) -> None:
        """Read rows of `file`; with `root`, their paths may be absolute, under it."""
        self.file, self.root, self.labels = file, root, dict[str, int]()
        self.places = dict[str, str]()  # by normal path: `./a.jpg` is `a.jpg`

    def add(self, where: str, folder: str, path: Any, label: Any) -> None:
        """Add one row; `where` names it in errors. Raises DatasetError."""
        if not isinstance(path, str) or isinstance(label, bool) or not isinstance(label, int):
            raise DatasetError(
                f"{self.file}: {where}: must be a path and a label, got {reprlib.repr(path)} and "
                f"{reprlib.repr(label)}."
            )
        uri = self._uri(folder, path)
        if uri is None or not is_text(path):
            raise DatasetError(f"{self.file}: {where}: {path!r} must stay inside the root.")
        normal = posixpath.normpath(uri)
        if normal in self.places:
            raise DatasetError(
                f"{self.file}: {where}: {path!r} is listed twice; first in {self.places[normal]}. "
                "Remove one."
            )
        self.labels[uri], self.places[normal] = label, where

    def _uri(self, folder: str, path: str) -> str | None:
        """Return the path under the root; None if it is not there."""
        if not path or ".." in path.split("/") or "\0" in path:
            return None
        if not path.startswith("/"):
            return path if folder in ("", ".") else f"{folder}/{path}"
        folder, _, name = path.rpartition("/")
        for whole in (Path(path), Path(os.path.realpath(folder), name)):  # of a root behind a link
            if self.root is not None and whole.is_relative_to(self.root):
                return whole.relative_to(self.root).as_posix()
        return None

    def checked(self, names: list[str] | None) -> dict[str, int]:
        """Return all labels; raise DatasetError if one is not a position in `names`."""
        if not self.labels:
            raise DatasetError(f"{self.file}: lists no test image.")
        if not names:
            raise DatasetError(f"{self.file}: has no class names; give the card `classes`.")
        for uri, label in self.labels.items():
            if not 0 <= label < len(names):
                raise DatasetError(
                    f"{self.file}: {self.places[posixpath.normpath(uri)]}: its label must be in "
                    f"[0, {len(names) - 1}] ({len(names)} class names), got {label}."
                )
        return self.labels
