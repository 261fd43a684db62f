"""Accuracy, calibration and entropy: the only arithmetic that reads labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xmore.statistics.intervals import wilson

ECE_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"


@dataclass(frozen=True)
class Outcome:
    """One method's predictions for N queries, with the true labels."""

    label: np.ndarray  # (N,) int
    prediction: np.ndarray  # (N,) float, NaN for no prediction
    probability: np.ndarray  # (N,) float, NaN for no prediction
    in_top5: np.ndarray  # (N,) bool
    caption_count: np.ndarray  # (N,) int


def accuracy_row(outcome: Outcome, m: int | None) -> dict[str, float | int | None]:
    """Return n, n_covered, n_short, top1, top1_covered, top5, Wilson 95 % bounds and ECE.

    No prediction counts as wrong in top1 and top5. `top1_covered` is over the queries with a
    caption; if the method reads no captions (`m` is None), every query is covered.
    """
    n = len(outcome.label)
    correct = outcome.prediction == outcome.label
    covered = np.ones(n, bool) if m is None else outcome.caption_count > 0
    low, high = wilson(int(correct.sum()), n)
    return {
        "n": n,
        "n_covered": int(covered.sum()),
        "n_short": 0 if m is None else int((outcome.caption_count < m).sum()),
        "top1": float(correct.mean()),
        "top1_covered": float(correct[covered].mean()) if covered.any() else None,
        "top5": float(outcome.in_top5.mean()),
        "ci_low": low,
        "ci_high": high,
        "ece": expected_calibration_error(outcome.probability, correct),
    }


def expected_calibration_error(probability: np.ndarray, correct: np.ndarray) -> float | None:
    """Return the mean over queries of |accuracy - probability| of their bin.

    `probability` (N,) float and `correct` (N,) bool. Bins are (low, high] of equal width. Queries
    without a prediction are excluded; None if no query has one.
    """
    predicted = ~np.isnan(probability)
    if not predicted.any():
        return None
    probability, correct = probability[predicted], correct[predicted].astype(np.float64)
    bins = np.clip(np.ceil(probability * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = np.bincount(bins, correct - probability, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(probability))


def mean_entropy(confidence: np.ndarray, classes: int) -> float | None:
    """Return the mean entropy in nats from (N,) stored confidences; NaN (no captions) is excluded.

    None if all are NaN.
    """
    seen = confidence[~np.isnan(confidence)]
    return float(((1 - seen) * np.log(classes)).mean()) if len(seen) else None
