"""Seconds, bytes and memory of a re-index's steps without a model: the numbers of docs/scale.md.

    python benchmarks/scale.py [ROWS]

A synthetic URL list goes through the project's own code: listing, selecting, assembling and exact
search. Random outcomes and features replace those of servers and a model, 512 numbers per image.
Downloading and embedding depend on the network and the model: `xmore memory plan` estimates them.
About two minutes and 3 GB of disk for a million rows. Needs the demo's models (`make demo`).
"""

from __future__ import annotations

import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index_build.base.batches import Batch
from index_build.base.features import describe, part, save_array, write_record
from index_build.base.tables import write_table
from index_build.index.build import unpublished
from index_build.plan import make_plan
from tasks import reindex as tasks
from xmore.config.memory import ReindexConfig
from xmore.files.paths import PROJECT_ROOT
from xmore.memory.rows import embedding_blocks
from xmore.memory.search import exact_search

DIM, QUERIES, K, FILE_ROWS, HOSTS = 512, 1000, 128, 250_000, 5000
WORDS = ("red", "small", "photo", "of", "a", "house", "in", "the", "snow", "market", "old", "car")


def main() -> None:
    """Make the list, run the steps, print the cost of each."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_list(root / "list", rows)
        plan = make_plan(config(root))
        wanted = timed("list", lambda: tasks.list_rows(plan))
        [batch] = timed("select", lambda: tasks.select_new(plan, wanted))
        say_disk("selected rows", batch.rows)
        write_outcomes(batch)
        folder = batch.features(plan.model)
        write_features(batch, folder)
        say_disk("outcomes", batch.outcomes)
        say_disk("features", folder)
        timed("assemble", lambda: tasks.assemble(plan, wanted, None))
        snapshot = unpublished(plan.work)
        queries = np.random.default_rng(1).standard_normal((QUERIES, DIM), np.float32)
        timed(
            f"exact search, {QUERIES} queries",
            lambda: exact_search(queries, embedding_blocks(snapshot), K, "cpu"),
        )


def config(root: Path) -> ReindexConfig:
    """Return the config of a memory of the list; its model only provides a name."""
    return ReindexConfig.model_validate(
        {
            "memory": root / "memory",
            "sources": [{"urls": {"path": str(root / "list")}}],
            "model": {"folder": PROJECT_ROOT / "data" / "models" / "lite0", "pooled": True},
            "cache": root / "cache",
        }
    )


def write_list(folder: Path, rows: int) -> None:
    """Write a URL list with LAION-400M's columns."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for file in range(-(-rows // FILE_ROWS)):
        count = min(FILE_ROWS, rows - file * FILE_ROWS)
        texts = rng.choice(WORDS, (count, 8))
        columns = {
            "URL": [f"https://host{i % HOSTS}.example/{file}/{i:09d}.jpg" for i in range(count)],
            "TEXT": [f"{' '.join(text)} {file}-{i}" for i, text in enumerate(texts)],
            "LICENSE": ["?"] * count,
            "NSFW": ["UNLIKELY"] * count,
            "similarity": rng.random(count),
        }
        pq.write_table(pa.table(columns), folder / f"{file:05d}.parquet")


def write_outcomes(batch: Batch) -> None:
    """Write outcomes as if each image had been downloaded."""
    for path in sorted(batch.rows.glob("*.parquet")):
        table = pq.read_table(path)
        rows = table.num_rows
        keys = [hashlib.sha256(url.encode()).hexdigest() for url in table["url"].to_pylist()]
        columns = {
            "memory_key": pa.array(keys),
            "width": pa.array([256] * rows, pa.int32()),
            "height": pa.array([256] * rows, pa.int32()),
            "image_path": pa.array([f"{i}.jpg" for i in range(rows)]),
            "host": pa.array([f"host{i % HOSTS}.example" for i in range(rows)]),
            "cause": pa.nulls(rows, pa.string()),
        }
        for name, values in columns.items():
            table = table.append_column(name, values)
        write_table(batch.outcomes / path.name, table)


def write_features(batch: Batch, folder: Path) -> None:
    """Write random features as if each image had been embedded."""
    left_out = ("cause", "tries", "host", "image_path")
    for number in batch.attempted():
        table = pq.read_table(batch.outcome(number))
        rows = np.random.default_rng(number).standard_normal((table.num_rows, DIM), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        save_array(part(folder, "img_emb", number), rows)
        kept = [name for name in table.column_names if name not in left_out]
        write_table(part(folder, "metadata", number), table.select(kept))
        facts = {"rows": len(rows), "dim": DIM, "rejected": {}}
        files = {kind: part(folder, kind, number) for kind in ("img_emb", "metadata")}
        write_record(folder, number, facts | {"files": describe(files)})


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Run `work`; print its seconds and the process's peak memory so far."""
    begun = time.perf_counter()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:<30}{time.perf_counter() - begun:8.1f} s, peak {peak:6,.0f} MB", flush=True)
    return result


def say_disk(name: str, folder: Path) -> None:
    """Print a folder's size."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{name:<30}{size / 1e6:8,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
