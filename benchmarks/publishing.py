"""Taking in and publishing a memory: the project's ways beside those they replaced, in one run.

    python benchmarks/publishing.py changes [ROWS]   keys added and removed between two snapshots
    python benchmarks/publishing.py source [ROWS]    list a clip-retrieval folder, read its metadata
    python benchmarks/publishing.py hashing [ROWS]   hash and check such a folder's files
    python benchmarks/publishing.py tasks [ROWS]     what a cluster is sent for a shard to embed

CPU seconds, seconds, peak MB of a process of its own, and whether the results are equal. At most
three minutes and 2 GB of disk for the default of 1,000,000 rows.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from retrieval import SHARD, measured, snapshot_of, unit, write_metadata

STEP = 10_000  # rows of a shard


def changes(folder: Path, rows: int) -> None:
    """Count the keys that differ between two snapshots: half of the rows are in both."""
    for name, first in (("a", 0), ("b", rows // 2)):
        write_metadata(folder / "snapshots" / name, rows, first)
    old, before = measured(changes_before, folder, rows)
    new, after = measured(changes_now, folder, rows)
    print(f"two snapshots of {rows:,} rows: {before} -> {after}, equal: {old == new}")


def changes_before(folder: Path, rows: int) -> tuple[int, int]:
    """Hold all keys of both snapshots, as before."""
    keys = []
    for name in "ba":
        files = sorted((folder / "snapshots" / name / "metadata").glob("*"))
        tables = [pq.read_table(file, columns=["memory_key"]) for file in files]
        column = pa.concat_tables(tables)["memory_key"].to_numpy().astype("S64")
        keys.append(np.unique(np.sort(column)))
    both = np.intersect1d(*keys, assume_unique=True).size
    return len(keys[0]) - both, len(keys[1]) - both


def changes_now(folder: Path, rows: int) -> tuple[int, int]:
    """Let DuckDB count them."""
    from index_build.snapshot import changes as counted

    snapshots = [snapshot_of(folder / "snapshots" / name, rows) for name in "ba"]
    return counted(*snapshots)


def source(folder: Path, rows: int) -> None:
    """List the rows of a folder of files of 250,000 rows, then read the metadata of all shards."""
    write_folder(folder / "foreign", rows)
    old, before = measured(list_before, folder, rows)
    new, after = measured(list_now, folder, rows)
    print(f"list {rows:,} rows: {before} -> {after}, equal: {old == new}")
    old, before = measured(read_before, folder, rows)
    new, after = measured(read_now, folder, rows)
    print(f"metadata of their {-(-rows // STEP)} shards: {before} -> {after}, equal: {old == new}")


def write_folder(folder: Path, rows: int) -> None:
    """Write a folder as clip-retrieval does: a row group a file, a thousandth of the rows twice."""
    write_metadata(folder, rows, group=SHARD)
    (folder / "img_emb").mkdir()
    for number, start in enumerate(range(0, rows, SHARD)):
        path = folder / "metadata" / f"metadata_{number:05d}.parquet"
        table = pq.read_table(path).rename_columns(["url", "caption"])
        count = len(table)
        places = np.where(np.arange(count) % 1000 == 999, 0, np.arange(count))
        pq.write_table(table.take(places), path, row_group_size=SHARD)
        block = np.random.default_rng([1, start]).standard_normal((count, 64), np.float32)
        name = folder / "img_emb" / f"img_emb_{number:05d}.npy"
        np.save(name, unit(block).astype(np.float16))


def listed(folder: Path) -> Any:
    """Look up the folder as a source: its files are hashed and checked."""
    from index_build.sources.look_up import look_up
    from xmore.config.memory import ReindexConfig

    config = ReindexConfig.model_validate(
        {
            "memory": folder / "memory",
            "sources": [{"clip_retrieval": {"folder": str(folder / "foreign")}}],
            "model": {"architecture": "ViT-B-32", "pretrained": "openai"},
            "cache": folder / "cache",
        }
    )
    return look_up(config.sources[0], config), config


def list_before(folder: Path, rows: int) -> tuple[int, int]:
    """Hold the key of each row in a set, as before."""
    from index_build.sources.look_up import _flush, _local_rows

    found, config = listed(folder)
    seen: set[str] = set()
    held: list[dict[str, Any]] = []
    twice = files = 0
    for row in _local_rows(found, config):
        if row["row_key"] in seen:
            twice += 1
            continue
        seen.add(row["row_key"])
        held.append(row)
        if len(held) == STEP:
            files = _flush(held, folder / "before", files)
    _flush(held, folder / "before", files)
    return len(seen), twice


def list_now(folder: Path, rows: int) -> tuple[int, int]:
    """Write the wanted rows."""
    from index_build.sources.look_up import want

    wanted = want(*listed(folder))
    counts = [pq.read_metadata(file).num_rows for file in wanted.files]
    return sum(counts), wanted.failures["same row twice"]


def shards(folder: Path, rows: int) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield each shard's file of metadata, and the places of its rows."""
    for number, start in enumerate(range(0, rows, SHARD)):
        path = folder / "foreign" / "metadata" / f"metadata_{number:05d}.parquet"
        count = min(SHARD, rows - start)
        for first in range(0, count, STEP):
            yield path, np.arange(first, min(first + STEP, count))


def read_before(folder: Path, rows: int) -> list[str]:
    """Read a file anew for each shard, as before."""
    tables = (pq.read_table(path).take(pa.array(at)) for path, at in shards(folder, rows))
    return [table["caption"][-1].as_py() for table in tables]


def read_now(folder: Path, rows: int) -> list[str]:
    """Stream each file."""
    from index_build.base.shards import _stream

    tables = (_stream(path, 0).take(at) for path, at in shards(folder, rows))
    return [table["caption"][-1].as_py() for table in tables]


def hashing(folder: Path, rows: int) -> None:
    """Adopt a folder with one reader, as before, and with as many as there are cores."""
    write_folder(folder / "foreign", rows)
    old, before = measured(adopted, folder, 1)
    new, after = measured(adopted, folder, min(4, os.cpu_count() or 1))
    print(f"hash and check {rows:,} x 64: {before} -> {after}, equal: {old == new}")


def adopted(folder: Path, readers: int) -> str:
    """Return the folder's digest."""
    from xmore.memory import adopt

    adopt.READERS = readers
    return adopt.adopt(folder / "foreign", folder / f"cache-{readers}").digest


def tasks(folder: Path, rows: int) -> None:
    """Pickle what a worker gets for a shard of a folder of images."""
    from index_build.base.batches import Batch
    from index_build.plan import ReindexPlan
    from index_build.sources.folder import FolderPairs
    from index_build.sources.look_up import Listed
    from xmore.config.memory import ReindexConfig
    from xmore.models.spec import ModelCard

    (folder / "images").mkdir()
    config = ReindexConfig.model_validate(
        {
            "memory": folder,
            "sources": [{"images": {"folder": folder / "images", "captions": folder / "c.csv"}}],
            "model": {"architecture": "ViT-B-32", "pretrained": "openai"},
        }
    )
    names = [f"{i:09d}.jpg" for i in range(rows)]
    pairs = FolderPairs(folder, names, names, [f"{i:064x}" for i in range(rows)], [])
    model = ModelCard("m", config.model, {"id": 1})
    plan = ReindexPlan(config, model, [Listed(config.sources[0], "d", pairs, str(folder))], [])
    batch = Batch(folder, "s", "images", str(folder), "", {}, 1)
    before = len(pickle.dumps((plan, batch, [0])))
    after = len(pickle.dumps((model, config.execution, batch, [0])))
    print(f"a shard of {rows:,} pairs: {before:,} bytes -> {after:,} bytes")


def main() -> None:
    """Run one part of the benchmark in a folder that is deleted at the end."""
    works = {"changes": changes, "source": source, "hashing": hashing, "tasks": tasks}
    if len(sys.argv) < 2 or sys.argv[1] not in works:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        works[sys.argv[1]](Path(scratch), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)


if __name__ == "__main__":
    main()
