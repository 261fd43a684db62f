"""The best classes of each query, without sorting all of them."""

from __future__ import annotations

import numpy as np


def best_labels(scores: np.ndarray, top: int) -> np.ndarray:
    """Return the labels of each row's `top` highest scores, best first: (Q, C) -> (Q, <= top) int.

    Of equal scores the lower label comes first, as in a stable sort of the complete row, to which
    this is equal. `scores` are float; a row with NaN, which means no prediction, gets any labels.
    """
    left = np.array(scores)
    queries = np.arange(len(left))
    best = np.empty((len(left), min(top, left.shape[1])), np.int64)
    for rank in range(best.shape[1]):
        best[:, rank] = left.argmax(1)  # of equal ones the first
        last = left[queries, best[:, rank]]
        left[queries, best[:, rank]] = -np.inf
    taken_twice = last == -np.inf if best.size else np.zeros(0, bool)
    if taken_twice.any():
        order = np.argsort(-scores[taken_twice], axis=1, kind="stable")
        best[taken_twice] = order[:, : best.shape[1]]
    return best
