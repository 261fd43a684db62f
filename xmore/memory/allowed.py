"""The nearest memory rows among those that are allowed, such as no test images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xmore.memory.search import Searcher

LOOK = 1024  # nearest rows that are examined to find k allowed ones


def nearest_allowed(
    search: Searcher,
    queries: np.ndarray,
    k: int,
    allowed: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return the k nearest allowed rows of (N, D) queries: (N, k) int64, best first, -1 for none.

    `allowed` maps (n,) places in `queries` and the (n, m) memory_ids found for them to (n, m) bool.
    Only the LOOK nearest rows are examined. Memory: that of the searcher for LOOK neighbours of the
    queries that lack allowed ones among their 4 k nearest.
    """
    found = np.full((len(queries), k), -1)
    todo, depth, most = np.arange(len(queries)), 4 * k, min(LOOK, search.rows.rows)
    while len(todo):
        depth = min(depth, most)
        nearest = search(queries[todo], depth).ids
        good = (nearest >= 0) & allowed(todo, nearest)
        rank = np.cumsum(good, 1) - 1
        row, column = np.nonzero(good & (rank < k))
        found[todo[row], rank[row, column]] = nearest[row, column]
        todo = todo[good.sum(1) < k] if depth < most else todo[:0]
        depth *= 4
    return found
