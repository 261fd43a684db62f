"""How good a memory's index is, and the search parameter that makes it good enough.

Held against exact search on queries that are not in the index, at 1, 16 and 128 neighbours.
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
COPY = 0.999  # inner product from which on two rows are copies of one picture
LARGEST_EF = 16_384
IMAGES = "rows mixed 2 to 1 with their nearest"
OTHERS = {"image": "captions", "text": "images"}  # queries of the other kind than the index is of


@dataclass(frozen=True)
class Trial:
    """Queries that are in no memory, by what they are, with their true neighbours."""

    queries: dict[str, np.ndarray]  # (Q, D) float32 unit rows
    truth: dict[str, Neighbours]  # (Q, K)


def make_trial(rows: Snapshot) -> Trial:
    """Queries for the index, and exact search's answers.

    All rows are in the memory, so none can be held out. Queries are rows mixed with their nearest,
    which lie where pictures lie but are none of them (2 to 1: halfway, two neighbours would tie
    for the first place); and, where the memory's model has texts, its captions' embeddings, far
    from all pictures as texts are (the pictures', where the index is of texts). Up to QUERIES of
    each, fewer where exact search would pass EXACT_MAX_MACS; the memory is read once. Holds twice
    BLOCK_BYTES and the similarities to that.
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
    found = exact_search(np.concatenate(list(queries.values())), _told_blocks(rows), K)
    truth = {}
    for number, kind in enumerate(queries):
        mine = slice(number * len(chosen), (number + 1) * len(chosen))
        truth[kind] = Neighbours(found.ids[mine], found.similarities[mine])
    return Trial(queries, truth)


def measure(rows: Snapshot, trial: Trial, factor: int) -> dict[str, Any]:
    """The index as it lies there: recall by kind of query, with `factor` and as it is; ms."""
    index = open_index(rows.index_path, rows.rows, rows.dim)
    kinds = {}
    for kind in trial.queries:
        kinds[kind] = {"recall": _recalls(rows, index, trial, kind, factor)}
        if factor > 1:
            kinds[kind]["without_rerank"] = _recalls(rows, index, trial, kind, 1)
    queries = trial.queries[IMAGES]
    return {
        "queries": len(queries),
        "of": kinds,
        "ms_per_query": round(_milliseconds(rows, index, queries, factor), 3),
        "threads": 1,
    }


def tune(rows: Snapshot, trial: Trial, key: str, config: IndexConfig) -> tuple[str, int] | None:
    """The least search parameter that finds `target_recall` of K neighbours; None: there is none.

    Doubles it from the smallest, in half steps. Raises SnapshotError where the largest does not
    do, and says what would.
    """
    index = open_index(rows.index_path, rows.rows, rows.dim)
    depth = Depth(K, config.rerank)
    parameter = search_parameter(index)
    if parameter is None:
        reached = _recall(rows, index, trial, depth)
        if reached < config.target_recall:
            raise _out_of_reach(rows, index, trial, config, f"{reached:.3f} with {key}")
        return None
    name, _ = parameter
    for value in _steps(index, depth):
        _set(index, name, value)
        reached = _recall(rows, index, trial, depth)
        if reached >= config.target_recall:
            return name, value
    what = f"{reached:.3f} at {name} {value}, the largest for {key}"
    raise _out_of_reach(rows, index, trial, config, what)


def search_parameter(index: Any) -> tuple[str, int] | None:
    """What trades an index's speed for recall, and how it is set; None: nothing does."""
    import faiss

    ivf = inverted_file(index)
    if ivf:
        return "nprobe", ivf.nprobe
    return ("efSearch", index.hnsw.efSearch) if isinstance(index, faiss.IndexHNSW) else None


def _set(index: Any, name: str, value: int) -> None:
    import faiss

    faiss.ParameterSpace().set_index_parameter(index, name, value)


def _steps(index: Any, depth: Depth) -> list[int]:
    """Values to try, rising."""
    ivf = inverted_file(index)
    # Below as many as are asked for, efSearch changes nothing.
    first, last = (1, ivf.nlist) if ivf else (depth.k * depth.factor, LARGEST_EF)
    steps = {round(first * 2 ** (i / 2)) for i in range(64)}
    return [*sorted(step for step in steps if step < last), last]


def _recall(rows: Snapshot, index: Any, trial: Trial, depth: Depth) -> float:
    found = search_opened(index, trial.queries[IMAGES], rows, depth)
    return recall(found, trial.truth[IMAGES])


def _recalls(rows: Snapshot, index: Any, trial: Trial, kind: str, factor: int) -> dict[str, float]:
    found = search_opened(index, trial.queries[kind], rows, Depth(K, factor))
    return {str(k): round(recall(_first(found, k), _first(trial.truth[kind], k)), 4) for k in AT}


def _first(found: Neighbours, k: int) -> Neighbours:
    return Neighbours(found.ids[:, :k], found.similarities[:, :k])


def _out_of_reach(
    rows: Snapshot, index: Any, trial: Trial, config: IndexConfig, what: str
) -> SnapshotError:
    """Say what limits the recall, and the first factor that would do."""
    target = config.target_recall
    todo = "Name a larger `index.key`, such as IVF4096,SQ8"
    for factor in (2, 4, 8, 16):
        better = _recall(rows, index, trial, Depth(K, config.rerank * factor))
        if better >= target:
            todo = f"Set `index.rerank: {config.rerank * factor}`, which finds {better:.3f}"
            break
    return SnapshotError(
        f"{rows.index_path}: recall@{K} is {what}, below `index.target_recall` {target}: what the "
        f"index keeps of a row limits it. {todo}, or lower the target. Nothing was published; "
        "run again to go on from the embeddings."
    )


def _milliseconds(rows: Snapshot, index: Any, queries: np.ndarray, factor: int) -> float:
    """Median milliseconds of a single query on one thread."""
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
    """Each chosen row and half its nearest, copies left out: (Q, D) unit rows."""
    similarities = rows[chosen] @ rows.T
    similarities[similarities > COPY] = -np.inf  # itself as well
    mixed = 2 * rows[chosen] + rows[similarities.argmax(1)]
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def _told_blocks(rows: Snapshot) -> Iterator[tuple[int, np.ndarray]]:
    with counting("index recall", rows.rows, "row") as done:
        for first, block in embedding_blocks(rows):
            yield first, block
            done(first + len(block))
