"""The keys and captions of a memory's rows, in one Arrow file from which any rows are read at once.

    <snapshot>/pairs.arrow          written when the snapshot is published, named in its manifest
    <cache>/pairs-<digest>.arrow    of an adopted folder or an older snapshot: made once

The columns are memory_key and caption; all record batches but the last have BATCH rows, so that a
memory_id says where its row is. The file is mapped: a look-up reads the pages of its rows, while
Parquet would be decompressed by whole row groups.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.digests import FactCache, digest_file, digest_text
from xmore.files.errors import SnapshotError, first_line, is_shortage
from xmore.files.locks import locked
from xmore.files.paths import fsync_dir, fsync_file
from xmore.files.progress import track
from xmore.files.tables import as_text
from xmore.memory.snapshot import PAIRS, MemoryShard, Snapshot

BATCH = 65_536  # rows
LOOKED_UP = 4096  # rows, after which their pages are given back: 1 GB at most
KEY, CAPTION = "memory_key", "caption"
SCHEMA = pa.schema([(KEY, pa.string()), (CAPTION, pa.large_string())])

log = logging.getLogger(__name__)


def pairs_file(snapshot: Snapshot) -> Path | None:
    """Return the file of a snapshot's pairs; None if there is none and no folder to make it in.

    It is made if it is absent from the cache, or not as it was written there.
    """
    if any(file["file"] == PAIRS for file in snapshot.manifest.get("files", [])):
        return snapshot.path / PAIRS
    if snapshot.cache is None:
        return None
    path = snapshot.cache / f"pairs-{snapshot.digest[:16]}.arrow"
    if path not in _made:
        try:
            with locked(path.with_suffix(".lock")):
                if not _is_whole(path):
                    _make(snapshot, path)
            _made[path] = path
        except OSError as error:
            what = "%s: cannot be made (%s); captions are looked up slowly"
            log.warning(what, path, error.strerror)
            _made[path] = None
    return _made[path]


_made: dict[Path, Path | None] = {}  # files of caches that this process has seen; None: impossible


def _is_whole(path: Path) -> bool:
    """Return whether a file of a cache has the size and the time that it was written with."""
    return path.is_file() and _facts(path).get(path.name) is not None


def _make(snapshot: Snapshot, path: Path) -> None:
    sha256 = write_pairs(snapshot, path)["sha256"]
    facts = _facts(path)
    facts.put(path.name, sha256)
    facts.save([path.name])


def _facts(path: Path) -> FactCache:
    return FactCache(path.parent, path.parent, path.stem)


def holds_pairs(path: Path) -> bool:
    """Return whether a file of a cache is as it was written. Reads every byte.

    Of one whose folder was moved nothing is known: it is made again before it is used.
    """
    sha256 = _facts(path).kept(path.name)
    return sha256 is None or digest_file(path) == sha256


def write_pairs(snapshot: Snapshot, path: Path) -> dict[str, Any]:
    """Write all keys and captions of a snapshot to `path`, durably -> its size and sha256.

    Memory: BATCH rows, and 10,000 of Parquet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")  # a killed writer's is written over
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch in _batches(snapshot):
                writer.write_batch(batch)
        fsync_file(temporary)
        facts = {"bytes": temporary.stat().st_size, "sha256": digest_file(temporary)}
        temporary.replace(path)
        fsync_dir(path.parent)
    except OSError as error:
        error.filename = str(path)  # a full disk names none
        raise
    return facts


def _batches(snapshot: Snapshot) -> Iterator[pa.RecordBatch]:
    """Yield all rows in record batches of BATCH rows; the last has fewer."""
    held: list[pa.Table] = []
    count = 0
    for shard in track(snapshot.shards, "memory pairs", "shard"):
        for table in pairs_of_shard(snapshot, shard):
            held.append(table)
            count += len(table)
            if count >= BATCH:
                joined = pa.concat_tables(held)
                full = count // BATCH * BATCH
                yield from joined.slice(0, full).combine_chunks().to_batches(BATCH)
                held, count = [joined.slice(full)], count - full
    if count:
        yield from pa.concat_tables(held).combine_chunks().to_batches(BATCH)


def pairs_of_shard(snapshot: Snapshot, shard: MemoryShard) -> Iterator[pa.Table]:
    """Yield a shard's memory_key and caption in order, as SCHEMA. Memory: 10,000 rows.

    In an adopted folder, a row's key is the sha256 of its place and caption.
    """
    columns = snapshot.columns
    names = [columns.key or str(columns.place), columns.caption]
    with pq.ParquetFile(shard.metadata) as file:
        check_columns(shard.metadata, names, file.schema_arrow.names)
        for batch in file.iter_batches(10_000, columns=names):
            table = pa.Table.from_batches([batch])
            firsts, captions = (readable(table[name], name) for name in names)
            keys = firsts if columns.key else keys_from(firsts, captions)
            yield pa.table([keys, captions], [KEY, CAPTION]).cast(SCHEMA)


def check_columns(metadata: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise SnapshotError if a file of metadata lacks a column."""
    for name in wanted:
        if name not in there:
            raise SnapshotError(
                f"{metadata}: no column `{name}`; it has {', '.join(there)}. "
                "Build the memory again."
            )


def keys_from(places: pa.ChunkedArray, captions: pa.ChunkedArray) -> pa.Array:
    """Return the keys of an adopted folder's rows."""
    pairs = zip(places.to_pylist(), captions.to_pylist(), strict=True)
    return pa.array([digest_text(f"{place}\n{caption}") for place, caption in pairs], pa.string())


def readable(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return untrusted text with nulls as "" and invalid UTF-8 replaced; numbers in figures."""
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    return as_text(column, f"column `{name}`").fill_null("")


def batches_of(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a file of pairs; they are mapped."""
    with pa.memory_map(str(path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def look_up(path: Path, ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Return columns of some memory_ids, in their order: (N,) int64 -> N rows of SCHEMA's columns.

    Memory: twice the result, and the pages of LOOKED_UP rows. Raises SnapshotError if the file is
    damaged.
    """
    wanted, inverse = np.unique(ids, return_inverse=True)
    found = [pa.schema([SCHEMA.field(name) for name in columns]).empty_table()]
    with path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_RANDOM)  # else the system would read the pages around each row, too
    numbers, starts = np.unique(wanted // BATCH, return_index=True)
    groups = np.split(wanted, starts[1:]) if len(wanted) else []
    try:
        reader = pa.ipc.open_file(pa.py_buffer(mapped))
        if reader.schema != SCHEMA:
            raise pa.ArrowInvalid(f"columns {', '.join(reader.schema.names)}")
        looked_up = 0
        for number, mine in zip(numbers.tolist(), groups, strict=True):
            found.append(_taken(reader.get_batch(number), mine - number * BATCH, columns))
            looked_up += len(mine)
            if looked_up >= LOOKED_UP:
                mapped.madvise(mmap.MADV_DONTNEED)
                looked_up = 0
    except (pa.ArrowInvalid, OSError) as error:
        if is_shortage(error):
            raise
        raise SnapshotError(
            f"{path}: is damaged ({first_line(error)}). If it is in a cache, delete it; else build "
            "the memory again."
        ) from error
    return pa.concat_tables(found).combine_chunks().take(pa.array(inverse))


def _taken(batch: pa.RecordBatch, places: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Return rows of a batch. Raises ArrowInvalid if it is damaged, instead of reading anywhere."""
    for name in columns:
        _, offsets, data = batch[name].buffers()
        wide = np.dtype(np.int64 if batch[name].type == pa.large_string() else np.int32)
        every = np.frombuffer(offsets or b"", wide, len(offsets or b"") // wide.itemsize)
        if places[-1] + 1 >= len(every):
            raise pa.ArrowInvalid(f"no row {places[-1]}")
        first, last = every[places], every[places + 1]
        if ((first < 0) | (last < first) | (last > len(data or b""))).any():
            raise pa.ArrowInvalid(f"column {name}")
    table = pa.table([batch[name].take(pa.array(places)) for name in columns], list(columns))
    table.validate(full=True)
    if any(column.null_count for column in table.columns):
        raise pa.ArrowInvalid("a row without text")
    return table
