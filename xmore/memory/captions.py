"""Fine retrieval: select the candidates' captions to keep (paper section 3.2; steps 3 and 4)."""

from __future__ import annotations

import numpy as np

GATHER_ROWS = 64  # queries at a time: 64 x 128 x 768 float32 = 25 MB


def usable(codes: np.ndarray, deduplicate: bool) -> np.ndarray:
    """Mark the candidates whose captions are usable: (Q, K) int64 text codes -> (Q, K) bool.

    A code identifies an exact text; -1 is an empty or absent caption. Among equal texts the one
    with the best coarse rank is kept. Dropped candidates are not replaced by others.
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
    """Return <query image, caption text> in the fine space: (Q, K) float32, -inf for code -1.

    `queries` (Q, D) and `texts` (U, D) are float32; `codes` (Q, K) int64 are rows of `texts`.
    """
    similarities = np.full(codes.shape, -np.inf, np.float32)
    if not len(texts):
        return similarities
    for start in range(0, len(codes), GATHER_ROWS):
        rows = slice(start, start + GATHER_ROWS)
        gathered = texts[np.maximum(codes[rows], 0)]
        # Not BLAS, which sums some columns in another order: equal texts would not tie.
        similarities[rows] = np.einsum("qkd,qd->qk", gathered, queries[rows])
    return np.where(codes >= 0, similarities, -np.inf)


def rank(similarities: np.ndarray, keep: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best M kept candidates of each query: positions (Q, M), and a mask of real ones.

    `similarities` and `keep` are (Q, K). Highest similarity first; ties go to the better coarse
    rank (the lower position).
    """
    masked = np.where(keep, similarities, -np.inf)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :m]
    return order, np.take_along_axis(keep, order, 1)


def coarse_rank(keep: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first M kept candidates in coarse order, as `rank` does ("indirect" ablation)."""
    return rank(np.zeros(keep.shape, np.float32), keep, m)
