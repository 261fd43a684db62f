"""A million rows under a memory limit: the index's size, its recall, its speed and its memory.

    python benchmarks/index.py [ROWS [KEY]]

Synthetic clustered embeddings (uniform ones would have no neighbours worth finding) are written
in the layout of a snapshot. The project's own code builds and tunes the index within 1 GiB, with
re-ranking. Queries come from the same clusters but are not rows. Building, exact search and the
index's search run in separate processes, so that peak memory is measured for each. Without a KEY
the index is chosen by size. About ten minutes and 2 GB of disk for a million rows on two cores.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIM, K, SHARD, QUERIES, NOISE = 384, 128, 50_000, 1000, 0.03
CLUSTER = 250  # rows per cluster, on average
MEMORY_GB, FACTOR, TARGET = 1.0, 4, 0.95


def main() -> None:
    """Make the memory, run the processes, print their results."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    key = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "memory"
        make_memory(folder, rows)
        say(f"{rows:,} rows x {DIM}, {clusters(rows):,} clusters, {QUERIES} queries, K = {K}")
        built = child("build", folder, key)
        say(f"index {built['key']} {built['parameters']}, limit {MEMORY_GB:g} GiB")
        say(f"  {built['bytes'] / 2**20:,.1f} MiB on disk")
        say(f"  built and tuned in {built['seconds']:.0f} s, peak {built['peak_mb']:,.0f} MB")
        for kind, found in built["measured"]["of"].items():
            say(f"  manifest: recall {shares(found['recall'])}, {kind}")
        exact = child("exact", folder, rows)
        say(f"exact search: {exact['ms']:.2f} ms per query, peak {exact['peak_mb']:,.0f} MB")
        say(f"  for this many queries `search: auto` chooses {exact['rule']}")
        for factor in (1, FACTOR):
            found = child("query", folder, factor)
            say("search by the index" + (f", {factor} x K re-ranked" if factor > 1 else ""))
            say(f"  recall {shares(found['recall'])}")
            say(f"  {found['ms']:.2f} ms per query in a batch, {found['one_ms']:.2f} on one thread")
            say(
                f"  peak {found['peak_mb']:,.0f} MB, {found['own_mb']:,.0f} MB without mapped files"
            )


def say(line: str) -> None:
    """Print at once: steps take minutes."""
    print(line, flush=True)


def shares(recall: dict[str, float]) -> str:
    """Format recalls as one line."""
    return ", ".join(f"{share:.4f} @{k}" for k, share in recall.items())


def make_memory(folder: Path, rows: int) -> None:
    """Write shards of float16 rows around centres, their metadata, and queries.npy."""
    for kind in ("img_emb", "metadata"):
        (folder / kind).mkdir(parents=True)
    centres = unit(np.random.default_rng(0).standard_normal((clusters(rows), DIM)))
    for shard, start in enumerate(range(0, rows, SHARD)):
        points = around(centres, min(SHARD, rows - start), [1, shard]).astype(np.float16)
        np.save(folder / "img_emb" / f"img_emb_{shard:05d}.npy", points)
        names = [f"row {start + i}" for i in range(len(points))]
        table = pa.table({"url": names, "caption": names})
        pq.write_table(table, folder / "metadata" / f"metadata_{shard:05d}.parquet")
    np.save(folder / "queries.npy", around(centres, QUERIES, [2]).astype(np.float32))


def build(folder: Path, key: str | None) -> dict[str, Any]:
    """Build the index as a re-index does."""
    from index_build.index.build import build_index
    from xmore.config.memory import IndexConfig

    config = IndexConfig(key=key, memory_gb=MEMORY_GB, target_recall=TARGET, rerank=FACTOR)
    begun = time.perf_counter()
    facts = build_index(folder, config)
    return facts | {"seconds": time.perf_counter() - begun}


def exact(folder: Path, rows: int) -> dict[str, Any]:
    """Find the true neighbours by exact search, and measure its cost."""
    from xmore.memory.adopt import adopt
    from xmore.memory.cost import exact_is_affordable
    from xmore.memory.rows import embedding_blocks
    from xmore.memory.search import exact_search

    queries, snapshot = np.load(folder / "queries.npy"), adopt(folder, folder.parent / "cache")
    begun = time.perf_counter()
    truth = exact_search(queries, embedding_blocks(snapshot), K)
    seconds = time.perf_counter() - begun
    np.save(folder / "truth.npy", truth.ids)
    affordable = exact_is_affordable(QUERIES, rows, DIM)
    return {"ms": 1000 * seconds / QUERIES, "rule": "exact search" if affordable else "the index"}


def query(folder: Path, factor: int) -> dict[str, Any]:
    """Find neighbours with the index, as a benchmark does."""
    import faiss

    from xmore.memory.adopt import adopt
    from xmore.memory.search import (
        Depth,
        Neighbours,
        index_search,
        open_index,
        recall,
        search_opened,
    )

    queries, snapshot = np.load(folder / "queries.npy"), adopt(folder, folder.parent / "cache")
    begun = time.perf_counter()
    found = index_search(queries, snapshot, Depth(K, factor))
    ms = 1000 * (time.perf_counter() - begun) / QUERIES
    truth = np.load(folder / "truth.npy")
    recalls = {
        k: recall(Neighbours(found.ids[:, :k], found.similarities), Neighbours(truth[:, :k], truth))
        for k in (1, 16, 128)
    }
    faiss.omp_set_num_threads(1)
    index, times = open_index(snapshot.index_path, snapshot.rows, snapshot.dim), []
    for row in queries[:100]:
        begun = time.perf_counter()
        search_opened(index, row[None], snapshot, Depth(K, factor))
        times.append(1000 * (time.perf_counter() - begun))
    status = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    return {
        "recall": recalls,
        "ms": ms,
        "one_ms": float(np.median(times)),
        "own_mb": own / 1024,
    }


def child(step: str, folder: Path, argument: Any) -> dict[str, Any]:
    """Run a step in a separate process -> its result, with the process's peak memory."""
    command = [sys.executable, __file__, "--step", step, str(folder), json.dumps(argument)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(printed)


def clusters(rows: int) -> int:
    """Return the number of centres."""
    return max(rows // CLUSTER, 1)


def around(centres: np.ndarray, count: int, seed: list[int]) -> np.ndarray:
    """Draw unit rows around random centres; a row's inner product with its centre is about 0.86."""
    generator = np.random.default_rng(seed)
    which = generator.integers(0, len(centres), count)
    return unit(centres[which] + NOISE * generator.standard_normal((count, DIM)))


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        step = {"build": build, "exact": exact, "query": query}[sys.argv[2]]
        result = step(Path(sys.argv[3]), json.loads(sys.argv[4]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result | {"peak_mb": peak}))
    else:
        main()
