"""What TDA's caches hold at each step of a stream: one pass over entropies and predictions."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Held:
    """The U items that a cache ever held, sorted by class."""

    query: np.ndarray  # (U,) int64: a position among the stream's queries
    label: np.ndarray  # (U,) int64: the class under which it is held
    entered: np.ndarray  # (U,) int64: the step from which it is held
    left: np.ndarray  # (U,) int64: the step from which it is held no longer

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Return which items are held at each of (Q,) steps: (Q, U) bool."""
        return (self.entered <= steps[:, None]) & (steps[:, None] < self.left)


def held(
    prediction: np.ndarray,
    entropy: np.ndarray,
    offered: np.ndarray,
    order: np.ndarray,
    size: int,
) -> Held:
    """Return what a cache of at most `size` items per class holds, steps counted from 1.

    A query is held under its `prediction`. If the class is full, it replaces the item of highest
    entropy, of equal ones the newest, if its own is lower. `prediction` (N,) int, `entropy` (N,)
    float64 and `offered` (N,) bool are by query, `order` (N,) has the queries in stream order. O(N)
    time; memory: 32 bytes per item.
    """
    items: list[list[int]] = []  # query, label, entered, left
    cache: dict[int, list[tuple[float, int]]] = {}  # class -> (entropy, item), sorted
    labels, entropies = prediction.tolist(), entropy.tolist()
    for step, query in enumerate(order.tolist(), 1):
        if not offered[query]:
            continue
        mine = cache.setdefault(labels[query], [])
        if len(mine) == size:
            if not entropies[query] < mine[-1][0]:
                continue
            items[mine.pop()[1]][3] = step
        insort(mine, (entropies[query], len(items)))
        items.append([query, labels[query], step, len(order) + 1])
    table = np.array(items, np.int64).reshape(-1, 4)
    return Held(*table[np.argsort(table[:, 1], kind="stable")].T)
