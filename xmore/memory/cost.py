"""The cost of exact search, and the bounds below which it is affordable."""

from __future__ import annotations

EXACT_MAX_MACS = 2e13  # multiply-adds; minutes on two cores, seconds on a GPU
EXACT_MAX_BYTES = 500e9  # bytes of embeddings read from disk


def exact_is_affordable(queries: int, rows: int, dim: int, scans: int = 1) -> bool:
    """Return whether exact search stays within its two bounds: the rule behind `search: auto`.

    `scans` is the number of times the complete memory, (rows, dim) float16, is read: once for a
    stage's queries (`Scan`).
    """
    return queries * rows * dim <= EXACT_MAX_MACS and scans * rows * dim * 2 <= EXACT_MAX_BYTES
