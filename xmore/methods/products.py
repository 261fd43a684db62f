"""Inner products that do not depend, to the last bit, on what else is computed with them."""

from __future__ import annotations

import numpy as np

ALIGN = 64


def inner_products(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the inner products of (n, D) and (m, D) rows: (n, m).

    A row's are the same whatever other rows there are: as BLAS may sum the last ones of a product
    in another order, it is padded. Memory: the result, and a copy of what is not `padded`.
    """
    return (padded(rows) @ padded(others).T)[: len(rows), : len(others)]


def padded(rows: np.ndarray) -> np.ndarray:
    """Return (n, D) rows, and rows of zeros up to a multiple of ALIGN."""
    missing = -len(rows) % ALIGN
    return np.pad(rows, ((0, missing), (0, 0))) if missing else rows
