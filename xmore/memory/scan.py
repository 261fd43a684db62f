"""Searching all queries of a stage: exactly, in one pass over the memory, or by the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from xmore.files.progress import counting
from xmore.memory.search import Neighbours, Searcher, exact_search

SCAN_BYTES = 512 << 20  # of the queries of one pass, and of their neighbours
SCAN_MACS = 1e14  # of one pass on a CPU, half an hour on two cores: a killed run repeats it


class Scan:
    """Finds the K neighbours of Q queries, which are asked for part by part, in order.

    An exact search reads the memory once for as many parts as SCAN_BYTES hold, at least one; on a
    CPU also within SCAN_MACS. Each part has the very neighbours that a search of it alone has.
    Memory: SCAN_BYTES, and that of `exact_search`.
    """

    def __init__(self, search: Searcher, k: int, queries: int, part_rows: int) -> None:
        self._search, self._k, self._queries, self._part_rows = search, k, queries, part_rows
        self._found: Neighbours | None = None
        self._first = self._last = 0  # the queries of `_found`

    def __call__(self, start: int, stop: int, read: Callable[[int, int], np.ndarray]) -> Neighbours:
        """Return the neighbours of queries [start, stop), a part.

        `read(start, stop)` returns queries, (n, D) float32 unit rows.
        """
        if not self._search.exact:
            return self._search(read(start, stop), self._k)
        if self._found is None or not (self._first <= start and stop <= self._last):
            self._found = None  # before the next takes its place in memory
            self._first, self._last = start, max(stop, min(start + self._at_once, self._queries))
            self._found = self._scanned(read(self._first, self._last))
        mine = slice(start - self._first, stop - self._first)
        return Neighbours(self._found.ids[mine], self._found.similarities[mine])

    @property
    def _at_once(self) -> int:
        """The number of queries of a pass: a multiple of a part's."""
        rows, dim = self._search.rows.rows, self._search.rows.dim
        # Queries as they are read and as a tensor; an id and a similarity, with -1 and NaN or not.
        most = SCAN_BYTES / (8 * dim + 24 * self._k)
        if self._search.device == "cpu":
            most = min(most, SCAN_MACS / (rows * dim))
        return max(1, int(most // self._part_rows)) * self._part_rows

    def _scanned(self, queries: np.ndarray) -> Neighbours:
        blocks = self._tracked()
        return exact_search(queries, blocks, self._k, self._search.device, self._part_rows)

    def _tracked(self) -> Iterator[tuple[int, np.ndarray | torch.Tensor]]:
        with counting("searching the memory", self._search.rows.rows, "row") as done:
            for first, rows in self._search.blocks:
                yield first, rows
                done(first + len(rows))
