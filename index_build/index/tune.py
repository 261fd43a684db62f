"""Measure the recall of a memory's index, and find the search parameter that makes it high enough.

Recall is measured at 1, 16 and 128 neighbours against exact search, on queries that are not in the
index.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xmore.config.memory import IndexConfig
from xmore.files.errors import SnapshotError
from xmore.files.progress import counting
from xmore.memory.cost import EXACT_MAX_MACS
from xmore.memory.rows import BLOCK_BYTES, embedding_blocks, embeddings_of
from xmore.memory.search import (
    Depth,
    Neighbours,
    exact_search,
    inverted_file,
    open_index,
    recall,
    search_opened,
)
from xmore.memory.snapshot import Snapshot, seen_by

QUERIES, FEWEST_QUERIES = 256, 16
K, AT = 128, (1, 16, 128)
TIMED = 64  # queries that are timed, one by one
COPY = 0.999  # inner product from which two rows are near duplicates
LARGEST_EF = 16_384
IMAGES = "rows mixed 2 to 1 with their nearest"
OTHERS = {"image": "captions", "text": "images"}  # index -> queries of the other modality


@dataclass(frozen=True)
class RecallQueries:
    """Queries that are not in the memory, by kind, with their true neighbours."""

    queries: dict[str, np.ndarray]  # (Q, D) float32 unit rows
    truth: dict[str, Neighbours]  # (Q, K)


def make_recall_queries(rows: Snapshot) -> RecallQueries:
    """Make queries for the index, and find their true neighbours by exact search.

    All rows are in the memory, so none can be held out. The first kind of query is a row mixed
    with its nearest row: it lies among the images' embeddings but equals none of them (2 to 1:
    halfway, two neighbours would tie for the first place). The second kind exists if the memory's
    model has a text tower: captions' embeddings, which are far from all images as texts are (for
    an index of texts: images' embeddings). At most QUERIES of each kind, fewer if exact search
    would exceed EXACT_MAX_MACS. The memory is read once. Memory: twice BLOCK_BYTES, and the
    similarities to these rows.
    """
    rng = np.random.default_rng(0)
    sample = min(rows.rows, BLOCK_BYTES // (4 * rows.dim))
    ids = np.sort(rng.choice(rows.rows, sample, replace=False))
    count = max(FEWEST_QUERIES, min(QUERIES, int(EXACT_MAX_MACS // (2 * rows.rows * rows.dim))))
    chosen = rng.permutation(sample)[:count]
    queries = {IMAGES: _mixtures(embeddings_of(rows, ids), chosen)}
    others = seen_by(rows, "text" if rows.kind == "image" else "image")
    if others:
        queries[OTHERS[rows.kind]] = embeddings_of(others, ids[chosen])
    found = exact_search(np.concatenate(list(queries.values())), _tracked_blocks(rows), K)
    truth = {}
    for number, kind in enumerate(queries):
        mine = slice(number * len(chosen), (number + 1) * len(chosen))
        truth[kind] = Neighbours(found.ids[mine], found.similarities[mine])
    return RecallQueries(queries, truth)


def measure(rows: Snapshot, sample: RecallQueries, factor: int) -> dict[str, Any]:
    """Measure the index on disk: recall by kind of query, with and without re-ranking; ms."""
    index = open_index(rows.index_path, rows.rows, rows.dim)
    kinds = {}
    for kind in sample.queries:
        kinds[kind] = {"recall": _recalls(rows, index, sample, kind, factor)}
        if factor > 1:
            kinds[kind]["without_rerank"] = _recalls(rows, index, sample, kind, 1)
    queries = sample.queries[IMAGES]
    return {
        "queries": len(queries),
        "of": kinds,
        "ms_per_query": round(_milliseconds(rows, index, queries, factor), 3),
        "threads": 1,
    }


def tune(
    rows: Snapshot, sample: RecallQueries, key: str, config: IndexConfig
) -> tuple[str, int] | None:
    """Find the smallest search parameter that finds `target_recall` of the K neighbours.

    None if the index has no parameter. Tries values from the smallest up, each sqrt(2) times the
    one before. Raises SnapshotError if the largest is not enough; the error names a remedy.
    """
    index = open_index(rows.index_path, rows.rows, rows.dim)
    depth = Depth(K, config.rerank)
    parameter = search_parameter(index)
    if parameter is None:
        reached = _recall(rows, index, sample, depth)
        if reached < config.target_recall:
            raise _out_of_reach(rows, index, sample, config, f"{reached:.3f} with {key}")
        return None
    name, _ = parameter
    for value in _steps(index, depth):
        _set(index, name, value)
        reached = _recall(rows, index, sample, depth)
        if reached >= config.target_recall:
            return name, value
    what = f"{reached:.3f} at {name} {value}, the largest for {key}"
    raise _out_of_reach(rows, index, sample, config, what)


def search_parameter(index: Any) -> tuple[str, int] | None:
    """Return the parameter that trades an index's speed for recall, and its value; or None."""
    import faiss

    ivf = inverted_file(index)
    if ivf:
        return "nprobe", ivf.nprobe
    return ("efSearch", index.hnsw.efSearch) if isinstance(index, faiss.IndexHNSW) else None


def _set(index: Any, name: str, value: int) -> None:
    import faiss

    faiss.ParameterSpace().set_index_parameter(index, name, value)


def _steps(index: Any, depth: Depth) -> list[int]:
    """Return the values to try, ascending."""
    ivf = inverted_file(index)
    # An efSearch below the number of requested neighbours changes nothing.
    first, last = (1, ivf.nlist) if ivf else (depth.k * depth.factor, LARGEST_EF)
    steps = {round(first * 2 ** (i / 2)) for i in range(64)}
    return [*sorted(step for step in steps if step < last), last]


def _recall(rows: Snapshot, index: Any, sample: RecallQueries, depth: Depth) -> float:
    found = search_opened(index, sample.queries[IMAGES], rows, depth)
    return recall(found, sample.truth[IMAGES])


def _recalls(
    rows: Snapshot, index: Any, sample: RecallQueries, kind: str, factor: int
) -> dict[str, float]:
    found = search_opened(index, sample.queries[kind], rows, Depth(K, factor))
    return {str(k): round(recall(_first(found, k), _first(sample.truth[kind], k)), 4) for k in AT}


def _first(found: Neighbours, k: int) -> Neighbours:
    return Neighbours(found.ids[:, :k], found.similarities[:, :k])


def _out_of_reach(
    rows: Snapshot, index: Any, sample: RecallQueries, config: IndexConfig, what: str
) -> SnapshotError:
    """Return an error that names what limits the recall, and the first factor that is enough."""
    target = config.target_recall
    todo = "Name a larger `index.key`, such as IVF4096,SQ8"
    for factor in (2, 4, 8, 16):
        better = _recall(rows, index, sample, Depth(K, config.rerank * factor))
        if better >= target:
            todo = f"Set `index.rerank: {config.rerank * factor}`, which finds {better:.3f}"
            break
    return SnapshotError(
        f"{rows.index_path}: recall@{K} is {what}, below `index.target_recall` {target}. The "
        "precision with which the index stores rows limits it. Nothing was published; the "
        f"embeddings are kept. {todo}, or lower the target, then run the same command again."
    )


def _milliseconds(rows: Snapshot, index: Any, queries: np.ndarray, factor: int) -> float:
    """Return the median milliseconds of a single query on one thread."""
    import faiss

    threads, times = faiss.omp_get_max_threads(), []
    faiss.omp_set_num_threads(1)
    for query in queries[:TIMED]:
        begun = time.perf_counter()
        search_opened(index, query[None], rows, Depth(K, factor))
        times.append(1000 * (time.perf_counter() - begun))
    faiss.omp_set_num_threads(threads)
    return float(np.median(times))


def _mixtures(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mix each chosen row 2 to 1 with its nearest row that is no near duplicate -> (Q, D)."""
    similarities = rows[chosen] @ rows.T
    similarities[similarities > COPY] = -np.inf  # near duplicates, and the row itself
    mixed = 2 * rows[chosen] + rows[similarities.argmax(1)]
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def _tracked_blocks(rows: Snapshot) -> Iterator[tuple[int, np.ndarray]]:
    with counting("index recall", rows.rows, "row") as done:
        for first, block in embedding_blocks(rows):
            yield first, block
            done(first + len(block))
