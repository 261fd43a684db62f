"""Rows of a snapshot: embeddings in blocks or by memory_id, captions, keys, places."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.digests import digest_text
from xmore.files.errors import SnapshotError
from xmore.memory.snapshot import MemoryShard, Snapshot

BLOCK_BYTES = 64 << 20  # of float32 embeddings held at a time while streaming
ALIGN = 64  # blocks are a multiple of so many rows: see `exact_search`


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
