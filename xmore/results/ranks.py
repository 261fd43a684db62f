"""Ranks of what belongs to a query among all that is searched, and recall over them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xmore.statistics.intervals import bootstrap_share, wilson
from xmore.statistics.significance import mcnemar_p

CELLS = 1 << 22  # similarities in memory at a time: 32 MB in float64, and their masks
KS = (1, 5, 10)
DIRECTIONS = ("image-to-text", "text-to-image")


class Ranks(NamedTuple):
    """For each of Q queries, the rank of the best of its own."""

    rank: np.ndarray  # (Q,) int64, from 1
    best: np.ndarray  # (Q,) int64: which one, a row of what is searched
    tied: np.ndarray  # (Q,) int64: how many others are exactly as similar


def ranks_among(queries: np.ndarray, others: np.ndarray, own: np.ndarray) -> Ranks:
    """Rank rows of `others` (N, D) by inner product with each of `queries` (Q, D).

    `own` (Q, 2) int64: rows [start, stop) of `others` belong to the query, at least one. Equal
    similarities are in the order of the rows. They are computed in float64 and rounded to float32,
    so that equal rows tie, whatever number of rows is multiplied at a time and by how many threads.
    Memory: CELLS similarities (of one query, if it has more), and what is not float64 as such.
    """
    columns = others.astype(np.float64, copy=False).T
    place = np.arange(columns.shape[1])
    step = max(1, CELLS // len(place))
    blocks = []
    for first in range(0, len(queries), step):
        start, stop = own[first : first + step].T[:, :, None]
        rows = queries[first : first + step].astype(np.float64, copy=False)
        similarities = (rows @ columns).astype(np.float32)
        mine = (start <= place) & (place < stop)
        best = np.where(mine, similarities, -np.inf).argmax(1)[:, None]
        most = np.take_along_axis(similarities, best, 1)
        equal = similarities == most
        before = (similarities > most) | (equal & (place < best))
        found = Ranks(before.sum(1) + 1, best[:, 0], (equal & ~mine).sum(1))
        blocks.append(found)
    return Ranks(*map(np.concatenate, zip(*blocks, strict=True)))


def recall_row(rank: np.ndarray, image: np.ndarray, k: int) -> dict[str, Any]:
    """Return n, recall at k with its 95 % interval, and the median rank, of (N,) ranks.

    `image` (N,) is the test image of each: captions of one image are alike, so images are drawn.
    """
    found = rank <= k
    low, high = _interval(found, image)
    recall, median = float(found.mean()), float(np.median(rank))
    return {"n": len(rank), "recall": recall, "ci_low": low, "ci_high": high, "median_rank": median}


def compare_found(mine: np.ndarray, baseline: np.ndarray, image: np.ndarray) -> dict[str, Any]:
    """Compare which of N queries two models find, (N,) bool; `image` (N,) is the image of each.

    The test is over the images, as an image's captions are alike: an image counts for the model
    that finds more of its queries. Where an image is one query, it is the exact McNemar test.
    """
    hits, of = _by_image(mine.astype(np.int64) - baseline, image)
    low, high = bootstrap_share(hits, of)
    more, fewer = int((hits > 0).sum()), int((hits < 0).sum())
    return {
        "n": len(mine),
        "only_model": more,
        "only_baseline_model": fewer,
        "difference": float(hits.sum() / of.sum()),
        "ci_low": low,
        "ci_high": high,
        "p": mcnemar_p(more, fewer),
    }


def _by_image(values: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the queries' values, (N,), for each of I images, and their number."""
    _, number = np.unique(image, return_inverse=True)
    return np.bincount(number, values), np.bincount(number)


def _interval(found: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    hits, of = _by_image(found, image)
    if (of == 1).all() or found.all() or not found.any():
        # A bootstrap of what is always the same sees no error; so many images may still have one.
        return wilson(round(float((hits / of).sum())), len(of))
    return bootstrap_share(hits, of)
