"""Reading a memory at the paper's size: the project's ways beside those they replaced, in one run.

    python benchmarks/retrieval.py pairs [ROWS]    keys and captions of 131,072 random rows
    python benchmarks/retrieval.py scan [ROWS]     exact search of 8,192 queries, one pass or eight

CPU seconds of the process, peak MB of a process of its own, and whether the results are equal.
`pairs` takes 4 minutes and 3 GB of disk for the default of 10,000,000 rows.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHARD, PART, K = 250_000, 1024, 128
NAMES = ("memory_key", "caption")
WORDS = ("red", "small", "photo", "of", "a", "house", "in", "the", "snow", "market", "old", "car")


def write_metadata(folder: Path, rows: int, first: int = 0, group: int = 4096) -> None:
    """Write metadata as a snapshot has it, rows `first` and on; captions of about 60 characters."""
    (folder / "metadata").mkdir(parents=True)
    for number, start in enumerate(range(0, rows, SHARD)):
        count = min(SHARD, rows - start)
        texts = np.random.default_rng(number).choice(WORDS, (count, 12))
        ids = range(first + start, first + start + count)
        keys = [hashlib.sha256(b"%d" % i).hexdigest() for i in ids]
        captions = [f"{' '.join(text)} {i}" for i, text in zip(ids, texts, strict=True)]
        table = pa.table({"memory_key": keys, "caption": captions})
        path = folder / "metadata" / f"metadata_{number:05d}.parquet"
        pq.write_table(table, path, compression="zstd", row_group_size=group)


def snapshot_of(folder: Path, rows: int, dim: int = 1) -> Any:
    """Open the folder as a snapshot; its shards are files of both kinds, of the same numbers."""
    from xmore.memory.snapshot import MemoryShard, Snapshot

    shards = [
        MemoryShard(
            folder / "img_emb" / f"img_emb_{number:05d}.npy",
            folder / "metadata" / f"metadata_{number:05d}.parquet",
            start,
            min(SHARD, rows - start),
        )
        for number, start in enumerate(range(0, rows, SHARD))
    ]
    facts = {"digest": "0" * 64, "rows": rows, "dim": dim, "files": []}
    return Snapshot(folder, "s", facts, tuple(shards))


def pairs(folder: Path, rows: int) -> None:
    """Look up a part's neighbours in Parquet, as before, and in the mapped file."""
    from xmore.memory.pairs import pairs_file

    write_metadata(folder, rows)
    before = snapshot_of(folder, rows)
    after = replace(before, cache=folder / "cache")
    _, spent = measured(pairs_file, after)
    size = next((folder / "cache").glob("*.arrow")).stat().st_size
    print(f"{rows:,} rows; the file is made once: {spent}, {size / 1e6:,.0f} MB")
    ids = np.random.default_rng(0).integers(0, rows, PART * K)
    first, old = measured(look_up, before, ids)
    second, new = measured(look_up, after, ids)
    print(f"{len(ids):,} random rows, keys and captions: {old} -> {new}, equal: {first == second}")


def look_up(snapshot: Any, ids: np.ndarray) -> str:
    """Return a hash of the keys and captions."""
    from xmore.memory.rows import pairs_of

    found = pairs_of(snapshot, ids).cast(pa.schema(dict.fromkeys(NAMES, pa.large_string())))
    every = hashlib.sha256()
    for column in found.combine_chunks().columns:
        for buffer in column.chunk(0).buffers()[1:]:
            every.update(buffer)
    return every.hexdigest()


def scan(folder: Path, rows: int) -> None:
    """Search queries part by part, each reading the memory, as before, and in one pass."""
    dim, queries = 128, 8 * PART
    (folder / "img_emb").mkdir()
    for number, start in enumerate(range(0, rows, SHARD)):
        shape = (min(SHARD, rows - start), dim)
        block = unit(np.random.default_rng([1, number]).standard_normal(shape, np.float32))
        np.save(folder / "img_emb" / f"img_emb_{number:05d}.npy", block.astype(np.float16))
    memory = snapshot_of(folder, rows, dim)
    wanted = unit(np.random.default_rng(2).standard_normal((queries, dim), np.float32))
    print(f"{queries:,} queries, {rows:,} x {dim}")
    first, old = measured(part_by_part, memory, wanted)
    second, new = measured(at_once, memory, wanted)
    print(f"exact search: {old} -> {new}, equal to the last bit: {first == second}")


def part_by_part(memory: Any, queries: np.ndarray) -> str:
    """Return a hash of the neighbours of all parts."""
    from xmore.memory.rows import embedding_blocks
    from xmore.memory.search import exact_search

    starts = range(0, len(queries), PART)
    return digest(exact_search(queries[s : s + PART], embedding_blocks(memory), K) for s in starts)


def at_once(memory: Any, queries: np.ndarray) -> str:
    """Return a hash of the neighbours of all parts."""
    from xmore.memory.scan import Scan
    from xmore.memory.search import Searcher

    found = Scan(Searcher(memory, True), K, len(queries), PART)
    starts = range(0, len(queries), PART)
    return digest(found(s, s + PART, lambda a, b: queries[a:b]) for s in starts)


def digest(parts: Any) -> str:
    """Return a hash of neighbours."""
    every = hashlib.sha256()
    for part in parts:
        every.update(part.ids.tobytes() + part.similarities.tobytes())
    return every.hexdigest()


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measured(work: Callable[..., Any], *args: Any) -> tuple[Any, str]:
    """Run `work` in a process of its own -> its result, and what it cost in words."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_spend, (work, *args))


def _spend(work: Callable[..., Any], *args: Any) -> tuple[Any, str]:
    for name in ("xmore.memory.rows", "pyarrow.compute"):
        import_module(name)  # is not measured
    read = _bytes_read()
    begun, cpu = time.perf_counter(), time.process_time()
    result = work(*args)
    spent, wall = time.process_time() - cpu, time.perf_counter() - begun
    status = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024
    read = (_bytes_read() - read) / 1e6
    return result, f"{spent:.2f} s of CPU, {wall:.2f} s, peak {peak:,.0f} MB, {read:,.0f} MB read"


def _bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].split()[1])  # rchar: also what the page cache had


def main() -> None:
    """Run one part of the benchmark in a folder that is deleted at the end."""
    what = {"pairs": (pairs, 10_000_000), "scan": (scan, 1_000_000)}
    if len(sys.argv) < 2 or sys.argv[1] not in what:
        sys.exit(__doc__)
    work, rows = what[sys.argv[1]]
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        work(Path(scratch), int(sys.argv[2]) if len(sys.argv) > 2 else rows)


if __name__ == "__main__":
    main()
