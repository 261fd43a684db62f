"""Rows of a snapshot: embeddings in blocks or by memory_id, captions, keys and locations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.errors import SnapshotError
from xmore.memory.pairs import (
    CAPTION,
    KEY,
    check_columns,
    keys_from,
    look_up,
    pairs_file,
    pairs_of_shard,
    readable,
)
from xmore.memory.snapshot import MemoryShard, Snapshot

BLOCK_BYTES = 64 << 20  # float32 embeddings in memory at a time while streaming
ALIGN = 64  # blocks are a multiple of this many rows: see `exact_search`


def embedding_blocks(snapshot: Snapshot) -> Iterator[tuple[int, np.ndarray]]:
    """Stream all embeddings: (first memory_id, (n, D) float32) of at most BLOCK_BYTES.

    Raises SnapshotError for rows that are not unit vectors.
    """
    for shard, first, stored in stored_blocks(snapshot):
        rows = stored.astype(np.float32)
        check_unit(shard, first, np.einsum("nd,nd->n", rows, rows))
        yield shard.start + first, rows


def stored_blocks(snapshot: Snapshot) -> Iterator[tuple[MemoryShard, int, np.ndarray]]:
    """Stream all embeddings as they are stored: shard, first row in it, (n, D) of its float type.

    They are read, not mapped: mapped pages would count as this process's memory until others need
    it. A block is at most BLOCK_BYTES of float32. The rows are not checked: see `check_unit`.
    """
    step = max(ALIGN, BLOCK_BYTES // (4 * snapshot.dim) // ALIGN * ALIGN)
    for shard in snapshot.shards:
        mapped = np.load(shard.embeddings, mmap_mode="r")
        dtype, offset = mapped.dtype, mapped.offset
        for first in range(0, shard.rows, step):
            count = min(step, shard.rows - first)
            skip = offset + first * snapshot.dim * dtype.itemsize
            block = np.fromfile(shard.embeddings, dtype, count * snapshot.dim, offset=skip)
            yield shard, first, block.reshape(count, snapshot.dim)


def embeddings_of(snapshot: Snapshot, ids: np.ndarray) -> np.ndarray:
    """Return the embeddings of some memory_ids, in their order: (N,) int64 -> (N, D) float32.

    Reads only these rows, shard by shard; with ascending ids each file is read once, from start to
    end. Memory: the result, and the pages of the shard that is mapped.
    """
    rows = np.empty((len(ids), snapshot.dim), np.float32)
    where = np.searchsorted(snapshot.starts, ids, side="right") - 1
    for number in np.unique(where):
        shard = snapshot.shards[number]
        mapped = np.load(shard.embeddings, mmap_mode="r")
        rows[where == number] = mapped[ids[where == number] - shard.start]
    return rows


def check_unit(shard: MemoryShard, first: int, squares: np.ndarray) -> None:
    """Raise SnapshotError unless the (n,) squared norms of a shard's rows from `first` on are 1."""
    wrong = np.flatnonzero(~(np.abs(squares - 1) < 0.02))  # NaN is wrong as well
    if len(wrong):
        raise SnapshotError(
            f"{shard.embeddings}: row {first + wrong[0]} is not a unit vector (squared norm "
            f"{squares[wrong[0]]:.3g}). Normalise it as clip-retrieval does, or build the memory "
            "again."
        )


def captions_of(snapshot: Snapshot, ids: np.ndarray) -> pa.ChunkedArray:
    """Return the captions of some memory_ids, in order: (N,) int64 -> N strings, "" if none."""
    return pairs_of(snapshot, ids, [CAPTION])[CAPTION].cast(pa.string())


def keys_of(snapshot: Snapshot, ids: np.ndarray) -> pa.Array:
    """Return the memory_keys of some memory_ids, in their order: (N,) int64 -> N strings."""
    return pairs_of(snapshot, ids, [KEY])[KEY].combine_chunks()


def pairs_of(
    snapshot: Snapshot, ids: np.ndarray, columns: Sequence[str] = (KEY, CAPTION)
) -> pa.Table:
    """Return the keys and captions of some memory_ids, in their order: (N,) int64 -> N rows.

    Memory: that of `look_up`; of an older snapshot opened without a cache, its row groups that have
    such rows, one at a time.
    """
    if file := pairs_file(snapshot):
        return look_up(file, ids, columns)
    theirs = snapshot.columns
    if theirs.key:
        names = {KEY: theirs.key, CAPTION: theirs.caption}
        return _lookup(snapshot, ids, [names[name] for name in columns]).rename_columns(columns)
    rows = _lookup(snapshot, ids, [str(theirs.place), theirs.caption])
    keys = keys_from(*rows.columns) if KEY in columns else pa.nulls(len(rows))
    return pa.table([keys, rows[theirs.caption]], [KEY, CAPTION]).select(columns)


def places_of(snapshot: Snapshot, ids: np.ndarray) -> list[str]:
    """Return the URLs or paths of the images of some memory_ids, in their order."""
    wanted = dict.fromkeys((snapshot.columns.place or "url", "url", "image_path"))
    rows = _lookup(snapshot, ids, list(wanted), or_null=True)  # each kind of source has its own
    columns = [column.to_pylist() for column in rows.columns]
    return [next(filter(None, row), "") for row in zip(*columns, [""] * len(ids), strict=True)]


def rows_of_shard(snapshot: Snapshot, shard: MemoryShard) -> Iterator[tuple[str, str]]:
    """Yield (memory_key, caption) of each row of a shard, in order. Memory: one batch."""
    for table in pairs_of_shard(snapshot, shard):
        yield from zip(table[KEY].to_pylist(), table[CAPTION].to_pylist(), strict=True)


def _lookup(
    snapshot: Snapshot, ids: np.ndarray, columns: list[str], or_null: bool = False
) -> pa.Table:
    """Return N rows of `columns` as text; reads only their row groups, one at a time.

    With `or_null` a column that a shard lacks is ""; else it raises SnapshotError.
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
        if not or_null:
            check_columns(shard.metadata, columns, file.schema_arrow.names)
        existing = [name for name in columns if name not in absent]
        pieces, first = [file.schema_arrow.empty_table().select(existing)], 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            inside = local[(local >= first) & (local < last)] - first
            if len(inside):
                pieces.append(file.read_row_group(group, existing).take(pa.array(inside)))
            first = last
    table = pa.concat_tables(pieces)
    for name in absent:
        table = table.append_column(name, pa.nulls(len(table), pa.string()))
    # Here, as the files' types may differ.
    return pa.table({name: readable(table[name], name) for name in columns})
