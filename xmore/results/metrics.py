"""Accuracy and its companions: the only arithmetic that sees labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xmore.statistics.intervals import wilson

ECE_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"


@dataclass(frozen=True)
class Outcome:
    """Of N queries, under one method: what was said, against what is so."""

    label: np.ndarray  # (N,) int
    prediction: np.ndarray  # (N,) float, NaN for no answer
    probability: np.ndarray  # (N,) float, NaN for no answer
    in_top5: np.ndarray  # (N,) bool
    caption_count: np.ndarray  # (N,) int


def accuracy_row(outcome: Outcome, m: int | None) -> dict[str, float | int | None]:
    """n, n_covered, n_short, top1, top1_covered, top5, Wilson 95 % bounds and ECE.

    No answer counts as wrong in top1 and top5; `top1_covered` is over the queries that have a
    caption. Without captions at play (`m` None) every query is covered.
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
    """Mean over queries of |accuracy - probability| of their bin; (N,) and (N,) -> scalar.

    Equal-width bins (low, high]; queries without an answer are left out.
    """
    answered = ~np.isnan(probability)
    if not answered.any():
        return None
    probability, correct = probability[answered], correct[answered].astype(np.float64)
    bins = np.clip(np.ceil(probability * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = np.bincount(bins, correct - probability, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(probability))


def mean_entropy(confidence: np.ndarray, classes: int) -> float | None:
    """Mean entropy in nats, from stored confidences; NaN (no captions) is left out."""
    seen = confidence[~np.isnan(confidence)]
    return float(((1 - seen) * np.log(classes)).mean()) if len(seen) else None
