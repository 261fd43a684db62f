"""Where each text of the text store is, in sorted runs that are merged as they grow."""

from __future__ import annotations

import numpy as np


class TextIndex:
    """Maps keys, (n, 32) uint8, to places, int64; of equal keys the last that was added counts.

    A key's first eight bytes stand for it: compare the rest with what is found. Adding n keys to N
    takes time in proportion to n log N. Memory: 16 bytes per key, three times that while merging.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []  # (begins, places), oldest first

    def __len__(self) -> int:
        return sum(len(begins) for begins, _ in self._runs)

    def add(self, keys: np.ndarray, places: np.ndarray) -> None:
        """Add keys and their places; both (n, ...)."""
        if len(keys):
            self._runs.append(_sorted(_begins(keys), places))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            (one, there), (two, here) = self._runs[-2:]
            self._runs[-2:] = [_sorted(np.concatenate([one, two]), np.concatenate([there, here]))]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the place of each key, -1 if absent: (n,) int64."""
        wanted = _begins(keys)
        order = np.argsort(wanted)  # neighbours are in the processor's cache
        wanted, places = wanted[order], np.full(len(wanted), -1)
        for begins, theirs in self._runs:
            at = np.searchsorted(begins, wanted, side="right") - 1
            hit = (at >= 0) & (begins[at] == wanted)
            places[hit] = theirs[at[hit]]
        found = np.empty_like(places)
        found[order] = places
        return found


def _begins(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]


def _sorted(begins: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(begins, kind="stable")  # merges two sorted halves
    return begins[order], places[order]
