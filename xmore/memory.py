"""Reading a memory: snapshots of image-text embeddings in clip-retrieval's layout.

    <memory>/CURRENT                     the name of the snapshot to read
    <memory>/snapshots/<name>/           img_emb/*.npy  text_emb/*.npy  metadata/*.parquet
                                         image.index    manifest.json
                                         text.index, where `index.text` asks for it

A row's memory_id is its position in the shards, in the order of their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.contracts import SnapshotManifest, read_contract
from xmore.digest import digest_text
from xmore.errors import SnapshotError
from xmore.locks import locked

BLOCK_BYTES = 64 << 20  # of float32 embeddings held at a time while streaming
ALIGN = 64  # blocks are a multiple of so many rows: see `exact_search`
EXACT_MAX_MACS = 2e13  # multiply-adds; minutes on two cores, seconds on a GPU
EXACT_MAX_BYTES = 500e9  # bytes of embeddings read from disk
Kind = Literal["image", "text"]
FOLDERS: dict[Kind, str] = {"image": "img_emb", "text": "text_emb"}


@dataclass(frozen=True)
class MemoryShard:
    """Two files of one shard and the memory_ids [start, start + rows) in them."""

    embeddings: Path
    metadata: Path
    start: int
    rows: int


@dataclass(frozen=True)
class Columns:
    """Which columns of the metadata say what."""

    key: str | None  # none: the key is the sha256 of place and caption
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
    kind: Kind = "image"  # which of a row's two embeddings the shards and the index are of

    @property
    def digest(self) -> str:
        """Digest of the rows: embeddings and metadata, not the index."""
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
        """The index's facts; None: there is no index of this kind."""
        return self.manifest.get(index_facts(self.kind))

    @cached_property
    def starts(self) -> np.ndarray:
        """First memory_id of each shard."""
        return np.array([shard.start for shard in self.shards])


def index_file(kind: Kind) -> str:
    """A snapshot's index of its images or of its texts."""
    return f"{kind}.index"


def index_facts(kind: Kind) -> str:
    """Where in a manifest the facts of an index stand."""
    return "index" if kind == "image" else "text_index"


def seen_by(snapshot: Snapshot, kind: Kind) -> Snapshot | None:
    """The same rows with their images' or their captions' embeddings.

    None where it has none of that kind, or of other dimensions than the images'.
    """
    shards = []
    for shard in snapshot.shards:
        name = shard.embeddings.name.replace(FOLDERS[snapshot.kind], FOLDERS[kind])
        path = snapshot.path / FOLDERS[kind] / name
        if not path.is_file() or np.load(path, mmap_mode="r").shape != (shard.rows, snapshot.dim):
            return None
        shards.append(replace(shard, embeddings=path))
    return replace(snapshot, shards=tuple(shards), kind=kind)


def resolve_current(memory: Path) -> str:
    """The name of the snapshot that `CURRENT` points to now."""
    try:
        name = (memory / "CURRENT").read_bytes().decode(errors="replace").strip()
    except OSError as error:
        raise SnapshotError(
            f"{memory / 'CURRENT'}: not there, so no snapshot was ever published. "
            "Build the memory with `xmore reindex CONFIG`."
        ) from error
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise SnapshotError(f"{memory / 'CURRENT'}: holds {name!r}, which is no snapshot's name.")
    return name


def open_snapshot(memory: Path, name: str) -> Snapshot:
    """Open a snapshot and check its counts and sizes; raises SnapshotError."""
    return read_snapshot(memory / "snapshots" / name)


def read_snapshot(path: Path) -> Snapshot:
    """Open the folder of a snapshot, published or not, and check its counts and sizes."""
    try:
        manifest = read_contract(path / "manifest.json", SnapshotManifest)
    except OSError as error:
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
                f"{file}: {have}, the manifest says {entry['bytes']}. Build it again."
            )
    shards = tuple(read_shards(path, manifest["dim"]))
    counted = sum(shard.rows for shard in shards)
    if counted != manifest["rows"]:
        raise SnapshotError(
            f"{path}: its shards hold {counted} rows, its manifest says {manifest['rows']}."
        )
    return Snapshot(path, path.name, manifest, shards)


def lock_of(memory: Path, name: str) -> Path:
    """The lock that readers of a snapshot share."""
    return memory / ".locks" / f"{name}.lock"


def changing(memory: Path, busy: str) -> AbstractContextManager[object]:
    """Hold the lock of whoever changes a memory.

    Raises LockedError, which says `busy`, where another holds it.
    """
    return locked(memory / ".locks" / "reindex.lock", refuse=f"{memory}: {busy}")


def in_use(memory: Path, name: str) -> AbstractContextManager[object]:
    """Hold a shared lock on a snapshot for as long as it is read, where the folder allows it."""
    lock = lock_of(memory, name)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError:
        return nullcontext()  # a read-only memory cannot be cleaned up by anybody either
    return locked(lock, shared=True)


def exact_is_affordable(queries: int, rows: int, dim: int, scans: int) -> bool:
    """Whether exact search stays below its two bounds: the rule behind `search: auto`.

    `scans` is how often the memory, (rows, dim) float16, is read from end to end.
    """
    return queries * rows * dim <= EXACT_MAX_MACS and scans * rows * dim * 2 <= EXACT_MAX_BYTES


def embedding_blocks(snapshot: Snapshot) -> Iterator[tuple[int, np.ndarray]]:
    """All embeddings, streamed: (first memory_id, (n, D) float32), BLOCK_BYTES at most.

    Read, not mapped: mapped pages would count as this process's memory until somebody needs it.
    """
    step = max(ALIGN, BLOCK_BYTES // (4 * snapshot.dim) // ALIGN * ALIGN)
    for shard in snapshot.shards:
        mapped = np.load(shard.embeddings, mmap_mode="r")
        dtype, offset = mapped.dtype, mapped.offset
        for first in range(0, shard.rows, step):
            count = min(step, shard.rows - first)
            skip = offset + first * snapshot.dim * dtype.itemsize
            block = np.fromfile(shard.embeddings, dtype, count * snapshot.dim, offset=skip)
            rows = block.reshape(count, snapshot.dim).astype(np.float32)
            _check_unit(shard, first, rows)
            yield shard.start + first, rows


def embeddings_of(snapshot: Snapshot, ids: np.ndarray) -> np.ndarray:
    """Embeddings of some memory_ids, in their order: (N,) int64 -> (N, D) float32.

    Reads these rows only, shard by shard; rising ids make that one sweep over the files. A shard
    is mapped while it is read: at most its pages stay in memory.
    """
    rows = np.empty((len(ids), snapshot.dim), np.float32)
    where = np.searchsorted(snapshot.starts, ids, side="right") - 1
    for number in np.unique(where):
        shard = snapshot.shards[number]
        mapped = np.load(shard.embeddings, mmap_mode="r")
        rows[where == number] = mapped[ids[where == number] - shard.start]
    return rows


def _check_unit(shard: MemoryShard, first: int, rows: np.ndarray) -> None:
    squares = np.einsum("nd,nd->n", rows, rows)
    wrong = np.flatnonzero(~(np.abs(squares - 1) < 0.02))  # NaN is wrong as well
    if len(wrong):
        raise SnapshotError(
            f"{shard.embeddings}: row {first + wrong[0]} is no unit vector (squared length "
            f"{squares[wrong[0]]:.3g}). Build the memory again."
        )


def captions_of(snapshot: Snapshot, ids: np.ndarray) -> pa.ChunkedArray:
    """Captions of some memory_ids, in their order: (N,) int64 -> N strings, "" where none."""
    column = snapshot.columns.caption
    return _readable(_lookup(snapshot, ids, [column])[column])


def places_of(snapshot: Snapshot, ids: np.ndarray) -> list[str]:
    """Where the images of some memory_ids come from, in their order: URLs or paths."""
    wanted = dict.fromkeys((snapshot.columns.place or "url", "url", "image_path"))
    rows = _lookup(snapshot, ids, list(wanted), or_null=True)  # each kind of source has its own
    columns = [_readable(column).to_pylist() for column in rows.columns]
    return [next(filter(None, row), "") for row in zip(*columns, [""] * len(ids), strict=True)]


def keys_of(snapshot: Snapshot, ids: np.ndarray) -> pa.Array:
    """memory_keys of some memory_ids, in their order: (N,) int64 -> N strings."""
    columns = snapshot.columns
    if columns.key:
        return _lookup(snapshot, ids, [columns.key])[columns.key].combine_chunks()
    rows = _lookup(snapshot, ids, [str(columns.place), columns.caption])
    places, captions = (_readable(column) for column in rows.columns)
    return pa.array(
        [
            digest_text(f"{p}\n{c}")
            for p, c in zip(places.to_pylist(), captions.to_pylist(), strict=True)
        ],
        pa.string(),
    )


def rows_of_shard(snapshot: Snapshot, shard: MemoryShard) -> Iterator[tuple[str, str]]:
    """memory_key and caption of each row of a shard, in its order; one batch in memory."""
    columns = snapshot.columns
    names = [columns.key or str(columns.place), columns.caption]
    with pq.ParquetFile(shard.metadata) as file:
        for batch in file.iter_batches(10_000, columns=names):
            table = pa.Table.from_batches([batch])
            firsts = _readable(table[names[0]]).to_pylist()
            captions = _readable(table[names[1]]).to_pylist()
            for first, caption in zip(firsts, captions, strict=True):
                yield (first if columns.key else digest_text(f"{first}\n{caption}")), caption


def _readable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings from elsewhere: nulls as "", bytes that are no UTF-8 replaced."""
    try:
        column.validate(full=True)
        return column.cast(pa.string()).fill_null("")
    except pa.ArrowInvalid:
        raw = column.cast(pa.binary()).to_pylist()
        texts = [(value or b"").decode("utf-8", "replace") for value in raw]
        return pa.chunked_array([pa.array(texts, pa.string())])


def _lookup(
    snapshot: Snapshot, ids: np.ndarray, columns: list[str], or_null: bool = False
) -> pa.Table:
    """N rows of `columns`; reads only the row groups that hold them, one at a time.

    Columns that a shard lacks are null texts if `or_null`, else a SnapshotError.
    """
    wanted, inverse = np.unique(ids, return_inverse=True)
    where = np.searchsorted(snapshot.starts, wanted, side="right") - 1
    found = [
        _take(snapshot.shards[shard], wanted[where == shard], columns, or_null)
        for shard in np.unique(where)
    ]
    if not found:
        return _take(snapshot.shards[0], wanted, columns, or_null)
    return pa.concat_tables(found).take(pa.array(inverse))


def _take(shard: MemoryShard, ids: np.ndarray, columns: list[str], or_null: bool) -> pa.Table:
    local = ids - shard.start
    with pq.ParquetFile(shard.metadata) as file:
        absent = [name for name in columns if name not in file.schema_arrow.names]
        if absent and not or_null:
            raise SnapshotError(
                f"{shard.metadata}: no column `{absent[0]}`; it has "
                f"{', '.join(file.schema_arrow.names)}. Build the memory again."
            )
        there = [name for name in columns if name not in absent]
        pieces, first = [file.schema_arrow.empty_table().select(there)], 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            inside = local[(local >= first) & (local < last)] - first
            if len(inside):
                pieces.append(file.read_row_group(group, there).take(pa.array(inside)))
            first = last
    table = pa.concat_tables(pieces)
    for name in absent:
        table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table.select(columns)


def read_shards(path: Path, dim: int) -> Iterator[MemoryShard]:
    """The shards of a folder in clip-retrieval's layout; raises SnapshotError where they differ."""
    embeddings = sorted((path / "img_emb").glob("*.npy"))
    metadata = sorted((path / "metadata").glob("*.parquet"))
    if len(embeddings) != len(metadata):
        raise SnapshotError(
            f"{path}: {len(embeddings)} files in img_emb but {len(metadata)} in metadata."
        )
    start = 0
    for emb, meta in zip(embeddings, metadata, strict=True):
        try:
            shape = np.load(emb, mmap_mode="r").shape
            rows = pq.read_metadata(meta).num_rows
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise SnapshotError(f"{path}: shard {emb.name} or {meta.name} is damaged.") from error
        if len(shape) != 2 or shape[1] != dim:
            raise SnapshotError(f"{emb}: shape {shape}, wanted {dim} dimensions as in the rest.")
        if shape[0] != rows:
            raise SnapshotError(f"{emb} has {shape[0]} rows but {meta.name} has {rows}.")
        yield MemoryShard(emb, meta, start, rows)
        start += rows
