"""Peak memory of retrieval when the memory grows tenfold: it should not grow.

    python benchmarks/memory_growth.py [ROWS]

Synthetic clustered embeddings and captions, no index: `candidates` by exact search, then
`captions` in coarse order. Each size runs in a separate process. About a minute and 500 MB of disk
for the default of 50,000 rows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIM, QUERIES, K, CLUSTERS, SHARD = 384, 2000, 128, 500, 50_000


def make_memory(folder: Path, rows: int) -> None:
    """Write a clip-retrieval folder of `rows` rows around CLUSTERS centres, equal for each size."""
    for kind in ("img_emb", "metadata"):
        (folder / kind).mkdir(parents=True)
    centres = unit(np.random.default_rng(0).standard_normal((CLUSTERS, DIM)))
    for shard, start in enumerate(range(0, rows, SHARD)):
        generator = np.random.default_rng([1, shard])
        which = generator.integers(0, CLUSTERS, min(SHARD, rows - start))
        points = unit(centres[which] + 0.03 * generator.standard_normal((len(which), DIM)))
        np.save(folder / "img_emb" / f"img_emb_{shard:05d}.npy", points.astype(np.float16))
        names = [f"picture {start + i} of subject {c}" for i, c in enumerate(which)]
        table = pa.table({"url": names, "caption": names})
        path = folder / "metadata" / f"metadata_{shard:05d}.parquet"
        pq.write_table(table, path, row_group_size=4096)


def retrieve(folder: Path) -> None:
    """Run the two stages on a memory; print the peak MB of each, then the seconds of each."""
    from tasks.candidates import candidates
    from tasks.captions import FineModel, captions
    from tasks.stage import Workspace
    from xmore.config.execution import ExecutionConfig
    from xmore.config.retrieval import RetrievalConfig
    from xmore.memory.adopt import adopt
    from xmore.models.spec import ModelCard, ModelSpec
    from xmore.store import schemas
    from xmore.store.artifacts import ArtifactKey

    work = Workspace(folder / "results", ExecutionConfig(device="cpu"))
    centres = unit(np.random.default_rng(0).standard_normal((CLUSTERS, DIM)))
    generator = np.random.default_rng(2)
    which = generator.integers(0, CLUSTERS, QUERIES)
    queries = unit(centres[which] + 0.03 * generator.standard_normal((QUERIES, DIM)))

    def table(start: int, stop: int) -> pa.Table:
        embedding = schemas.fixed_lists(queries[start:stop].astype(np.float32))
        return pa.table({"query_id": range(start, stop), "embedding": embedding})

    embeddings = work.store.write(ArtifactKey("query_embeddings", "d", {}), [QUERIES], table)
    card = ModelCard("synthetic", ModelSpec(architecture="RN50", pretrained="openai"), {"id": 1})
    snapshot = adopt(folder, folder / "cache")
    retrieval = RetrievalConfig(candidates=K, captions=[16], fine="indirect", search="exact")
    found = candidates(work, embeddings, card, snapshot, retrieval)
    kept = captions(work, found, snapshot, FineModel(card, embeddings), retrieval)
    print(found.peak_rss_mb, kept.peak_rss_mb, found.seconds, kept.seconds)


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    """Measure both sizes and print the ratio."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    peaks = {}
    print(f"{QUERIES} queries, K = {K}, {DIM} dimensions")
    for size in (rows, 10 * rows):
        with tempfile.TemporaryDirectory() as scratch:
            make_memory(Path(scratch), size)
            command = [sys.executable, __file__, "--retrieve", scratch]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        coarse, fine, coarse_s, fine_s = map(float, printed.split())
        peaks[size] = max(coarse, fine)
        print(f"{size:>9,} rows: candidates {coarse:6.0f} MB {coarse_s:6.1f} s, "
              f"captions {fine:6.0f} MB {fine_s:5.1f} s")  # fmt: skip
    print(f"peak memory with ten times the rows: {peaks[10 * rows] / peaks[rows]:.3f} times")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--retrieve":
        retrieve(Path(sys.argv[2]))
    else:
        main()
