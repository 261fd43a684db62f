"""Image scores, text scores and their confidence (paper section 3; design steps 1, 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import entr, softmax


def class_features(prompts: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Return the features of C classes, the normalised means over their prompts: (C, D) float32.

    `prompts` are (P, D) float32 unit rows, class after class; `counts` is the number of prompts
    per class. The feature of a single prompt is used unchanged (as in the paper; means are for
    sets such as CLIP's 80 templates).
    """
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    total = np.add.reduceat(prompts, starts, axis=0)
    single = (np.asarray(counts) == 1)[:, None]
    unit = total / np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(single, total, unit).astype(np.float32)


def class_probabilities(features: np.ndarray, class_features: np.ndarray, tau: float) -> np.ndarray:
    """Return softmax(tau * x . t_c): (N, D) and (C, D) float32 unit rows -> (N, C) float64.

    Logits are float32, the softmax is float64.
    """
    logits = np.float32(tau) * (features @ class_features.T)
    return softmax(logits.astype(np.float64), axis=1)


def mean_over_captions(probabilities: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return the text scores: the mean probabilities over each query's captions, (Q, C) float64.

    `probabilities` are (U, C) float64, of distinct captions. `which` are (Q, M) int64 rows of it,
    with -1 for none after the captions. A query without captions gets a row of NaN. The sum is in
    rank order, so that the result does not depend on how queries are grouped.
    """
    total = np.zeros((len(which), probabilities.shape[1]))
    for rank in range(which.shape[1]):
        present = which[:, rank] >= 0
        total[present] += probabilities[which[present, rank]]
    count = (which >= 0).sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return total / count


def confidence(scores: np.ndarray) -> np.ndarray:
    """Return 1 - H(P) / log C, clipped to [0, 1]: (Q, C) float32 *stored* scores -> (Q,) float64.

    Natural log, 0 log 0 = 0; a row of NaN gives NaN. Raises ValueError for C < 2, as the measure
    is undefined there.
    """
    classes = scores.shape[1]
    if classes < 2:
        raise ValueError(f"confidence needs at least 2 classes, got {classes}")
    entropy = entr(scores.astype(np.float64)).sum(axis=1)
    return np.clip(1 - entropy / np.log(classes), 0, 1)
