"""Fine retrieval: which captions of the candidates are kept (paper section 3.2; steps 3 and 4)."""

from __future__ import annotations

import numpy as np

GATHER_ROWS = 64  # queries at a time: 64 x 128 x 768 float32 = 25 MB


def usable(codes: np.ndarray, deduplicate: bool) -> np.ndarray:
    """Which candidates may give a caption: (Q, K) int64 text codes -> (Q, K) bool.

    A code stands for an exact text, -1 for an empty or absent caption. Of equal texts the one
    with the best coarse rank is kept; nothing is refilled.
    """
    keep = codes >= 0
    if deduplicate:
        order = np.argsort(codes, axis=1, kind="stable")
        ranked = np.take_along_axis(codes, order, 1)
        again = np.zeros_like(keep)
        np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], 1)
        keep &= ~again
    return keep


def fine_similarities(queries: np.ndarray, texts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """<query image, caption text> in the fine space: (Q, K) float32, -inf where the code is -1.

    `queries` (Q, D) and `texts` (U, D) float32; `codes` (Q, K) are rows of `texts`.
    """
    similarities = np.full(codes.shape, -np.inf, np.float32)
    if not len(texts):
        return similarities
    for start in range(0, len(codes), GATHER_ROWS):
        rows = slice(start, start + GATHER_ROWS)
        gathered = texts[np.maximum(codes[rows], 0)]
        # Not BLAS: it sums some columns in another order, and equal texts would not tie.
        similarities[rows] = np.einsum("qkd,qd->qk", gathered, queries[rows])
    return np.where(codes >= 0, similarities, -np.inf)


def rank(similarities: np.ndarray, keep: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The best M kept candidates of each query: (Q, K) -> positions (Q, M), and which exist.

    Highest similarity first, ties by the lower coarse rank (the lower position).
    """
    masked = np.where(keep, similarities, -np.inf)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :m]
    return order, np.take_along_axis(keep, order, 1)


def coarse_rank(keep: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The "indirect" ablation: the first M kept candidates in coarse order."""
    return rank(np.zeros(keep.shape, np.float32), keep, m)
