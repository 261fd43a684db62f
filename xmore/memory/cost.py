"""What exact search costs, and when that is affordable."""

from __future__ import annotations

EXACT_MAX_MACS = 2e13  # multiply-adds; minutes on two cores, seconds on a GPU
EXACT_MAX_BYTES = 500e9  # bytes of embeddings read from disk


def exact_is_affordable(queries: int, rows: int, dim: int, scans: int) -> bool:
    """Whether exact search stays below its two bounds: the rule behind `search: auto`.

    `scans` is how often the memory, (rows, dim) float16, is read from end to end.
    """
    return queries * rows * dim <= EXACT_MAX_MACS and scans * rows * dim * 2 <= EXACT_MAX_BYTES
