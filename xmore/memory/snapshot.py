"""Reading a memory: snapshots of image-text embeddings in clip-retrieval's layout.

    <memory>/CURRENT                     the name of the snapshot to read
    <memory>/snapshots/<name>/           img_emb/*.npy  text_emb/*.npy  metadata/*.parquet
                                         image.index    manifest.json
                                         text.index, if `index.text` is set
                                         pairs.arrow, see xmore/memory/pairs.py

A row's memory_id is its position in the shards, in the order of their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.errors import SnapshotError, is_shortage
from xmore.files.paths import is_text
from xmore.store.contracts import SnapshotCard, SnapshotManifest, read_contract

Kind = Literal["image", "text"]
PAIRS = "pairs.arrow"
FOLDERS: dict[Kind, str] = {"image": "img_emb", "text": "text_emb"}


@dataclass(frozen=True)
class MemoryShard:
    """The two files of a shard, which contain the memory_ids [start, start + rows)."""

    embeddings: Path
    metadata: Path
    start: int
    rows: int


@dataclass(frozen=True)
class Columns:
    """The names of the metadata's columns."""

    key: str | None  # None: the key is the sha256 of place and caption
    caption: str
    place: str | None = None


OURS = Columns(key="memory_key", caption="caption")


@dataclass(frozen=True)
class Snapshot:
    """One immutable version of a memory."""

    path: Path
    name: str
    manifest: dict[str, Any]
    shards: tuple[MemoryShard, ...]
    columns: Columns = OURS
    kind: Kind = "image"  # which of a row's two embeddings the shards and the index contain
    cache: Path | None = None  # for what is made once of its rows: see xmore/memory/pairs.py

    @property
    def digest(self) -> str:
        """The digest of the rows: embeddings and metadata, without the index."""
        return self.manifest["digest"]

    @property
    def rows(self) -> int:
        return self.manifest["rows"]

    @property
    def dim(self) -> int:
        return self.manifest["dim"]

    @property
    def index_path(self) -> Path:
        return self.path / index_file(self.kind)

    @property
    def index(self) -> dict[str, Any] | None:
        """The manifest's entry of the index; None if there is no index of this kind."""
        return self.manifest.get(index_facts(self.kind))

    @cached_property
    def starts(self) -> np.ndarray:
        """The first memory_id of each shard."""
        return np.array([shard.start for shard in self.shards])


def index_file(kind: Kind) -> str:
    """Return the file name of a snapshot's index of its images or texts."""
    return f"{kind}.index"


def index_facts(kind: Kind) -> str:
    """Return the manifest's key of an index."""
    return "index" if kind == "image" else "text_index"


def seen_by(snapshot: Snapshot, kind: Kind) -> Snapshot | None:
    """Return a snapshot's image rows or text rows: the same rows with the embeddings of that kind.

    None if it has no such embeddings, or if they differ from the images' in dimensions.
    """
    shards = []
    theirs = numbered(snapshot.path / FOLDERS[kind], ".npy")
    ours = numbered(snapshot.path / FOLDERS[snapshot.kind], ".npy")
    numbers = {path: number for number, path in ours.items()}
    for shard in snapshot.shards:
        path = theirs.get(numbers[shard.embeddings])
        if path is None or open_array(path).shape != (shard.rows, snapshot.dim):
            return None
        shards.append(replace(shard, embeddings=path))
    return replace(snapshot, shards=tuple(shards), kind=kind)


def check_there(memory: Path) -> None:
    """Raise SnapshotError if there is no such folder."""
    if not memory.is_dir():
        raise SnapshotError(
            f"{memory}: no memory is there. Correct the path, or build the memory with "
            "`xmore reindex CONFIG`."
        )


def resolve_current(memory: Path) -> str:
    """Return the name of the snapshot in `CURRENT`. Raises SnapshotError."""
    try:
        name = (memory / "CURRENT").read_bytes().decode(errors="replace").strip()
    except OSError as error:
        if is_shortage(error):
            raise
        check_there(memory)
        if (memory / "img_emb").is_dir():
            raise SnapshotError(
                f"{memory}: is a folder made by clip-retrieval, which has no snapshots. Set it as "
                "a benchmark's `memory`."
            ) from error
        raise SnapshotError(
            f"{memory / 'CURRENT'}: absent, so no snapshot has been published. "
            "Build the memory with `xmore reindex CONFIG`."
        ) from error
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise SnapshotError(
            f"{memory / 'CURRENT'}: contains {name!r}, which is not a snapshot's name."
        )
    return name


def open_snapshot(memory: Path, name: str) -> Snapshot:
    """Open a snapshot and check its counts and sizes. Raises SnapshotError."""
    return read_snapshot(memory / "snapshots" / name)


def read_snapshot(path: Path) -> Snapshot:
    """Open a snapshot's folder, published or not; check counts and sizes. Raises SnapshotError."""
    try:
        manifest = read_contract(path / "manifest.json", SnapshotManifest)
    except OSError as error:
        if is_shortage(error):
            raise
        raise SnapshotError(
            f"{path / 'manifest.json'}: cannot be read ({error.strerror}). "
            "Name another snapshot in CURRENT, or build the memory again."
        ) from error
    except ValueError as error:
        raise SnapshotError(
            f"{path / 'manifest.json'}: not a snapshot's manifest ({error})."
        ) from error
    for entry in manifest["files"]:
        file = path / entry["file"]
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            have = "is absent" if size is None else f"has {size} bytes"
            raise SnapshotError(
                f"{file}: {have}, the manifest says {entry['bytes']}. Build the memory again."
            )
    shards = tuple(read_shards(path, manifest["dim"]))
    counted = sum(shard.rows for shard in shards)
    if counted != manifest["rows"]:
        raise SnapshotError(
            f"{path}: its shards have {counted} rows, its manifest says {manifest['rows']}."
        )
    return Snapshot(path, path.name, manifest, shards)


def card_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return the manifest of a snapshot, with all facts of a card. Raises SnapshotError."""
    path = snapshot.path / "manifest.json"
    try:
        return read_contract(path, SnapshotCard)
    except (OSError, ValueError) as error:
        if is_shortage(error):
            raise
        raise SnapshotError(
            f"{path}: of another version, its card lacks facts ({error})."
        ) from error


def read_shards(path: Path, dim: int) -> Iterator[MemoryShard]:
    """Yield the shards of a folder in clip-retrieval's layout, in the order of their names.

    Embeddings and metadata belong together by the number in their names. Raises SnapshotError.
    """
    embeddings = numbered(path / "img_emb", ".npy")
    metadata = numbered(path / "metadata", ".parquet")
    if len(embeddings) != len(metadata):
        raise SnapshotError(
            f"{path}: {len(embeddings)} files in img_emb but {len(metadata)} in metadata."
        )
    check_pairs(path, embeddings, metadata)
    start = 0
    for number, emb in sorted(embeddings.items(), key=lambda item: item[1]):
        meta = metadata[number]
        shape = open_array(emb).shape
        try:
            rows = pq.read_metadata(meta).num_rows
        except (OSError, pa.ArrowException) as error:
            if is_shortage(error):
                raise
            raise SnapshotError(f"{path}: shard {emb.name} or {meta.name} is damaged.") from error
        if shape[1] != dim:
            raise SnapshotError(
                f"{emb}: shape {shape}, expected {dim} dimensions as in the other shards."
            )
        if shape[0] != rows:
            raise SnapshotError(f"{emb} has {shape[0]} rows but {meta.name} has {rows}.")
        yield MemoryShard(emb, meta, start, rows)
        start += rows


def numbered(folder: Path, ending: str) -> dict[int, Path]:
    """Return the files of a folder by the number that ends their names, -1 if there is none.

    Raises SnapshotError if two have the same, or if a name is not UTF-8.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix == ending and not path.name.startswith("."):
            if not is_text(path.name):
                raise SnapshotError(f"{folder}: {path.name!r} is not UTF-8. Rename this file.")
            digits = re.search("[0-9]*$", path.stem)
            number = int(digits[0]) if digits and digits[0] else -1
            if number in found:
                raise SnapshotError(
                    f"{folder}: {found[number].name} and {path.name} have the same number, so it "
                    "cannot pair the files of embeddings and metadata. Rename or remove one."
                )
            found[number] = path
    return found


def check_pairs(folder: Path, one: dict[int, Path], other: dict[int, Path]) -> None:
    """Raise SnapshotError unless two kinds of numbered files have the same numbers."""
    lone = sorted(one.keys() ^ other.keys())
    if lone:
        file = (one | other)[lone[0]]
        raise SnapshotError(
            f"{folder}: {file.parent.name}/{file.name} has no partner of its number. Files of "
            "img_emb, text_emb and metadata belong together by the numbers in their names."
        )


def open_array(path: Path) -> np.ndarray:
    """Map a file of embeddings, (n, D) in some float type; it is never unpickled.

    Raises SnapshotError.
    """
    try:
        rows = np.load(path, mmap_mode="r")
        shape, dtype = rows.shape, rows.dtype
    except Exception as error:  # damaged headers raise all kinds
        if is_shortage(error):
            raise
        raise SnapshotError(f"{path}: not a readable array ({error}).") from error
    if len(shape) != 2 or dtype.kind != "f":
        raise SnapshotError(f"{path}: shape {shape} of {dtype}, expected rows of float embeddings.")
    if not rows.flags.c_contiguous:
        raise SnapshotError(
            f"{path}: is in Fortran order. Save it again, as numpy.ascontiguousarray makes it."
        )
    return rows
