"""Adjustments: how confidences become weights as queries come one by one (design step 7).

Each modality is adjusted separately. NaN marks a query without captions: it takes a step, leaves
the state unchanged, and its weight is NaN. Every pass costs O(N) and equals the one-by-one loop bit
for bit, also when it resumes from the state of another pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StreamState:
    """The state of an ordered pass over one modality after some steps."""

    minimum: float = np.inf
    maximum: float = -np.inf
    total: float = 0.0


def stream_order(queries: int, seed: int | None) -> np.ndarray:
    """Return the order of the queries: (N,) int64 positions among queries sorted by query_id.

    Without a seed they come as they are sorted.
    """
    return np.arange(queries) if seed is None else np.random.default_rng(seed).permutation(queries)


def steps_of(order: np.ndarray) -> np.ndarray:
    """Return the step of each query in an order, from 1: (N,) int64, by query_id."""
    steps = np.empty(len(order), np.int64)
    steps[order] = np.arange(1, len(order) + 1)
    return steps


def minmax(confidence: np.ndarray, state: StreamState = StreamState()) -> np.ndarray:
    """Return (c - min) / (max - min) over the steps up to and including each; 0.5 if max = min.

    (N,) float64 in stream order -> (N,) float64. Source: the paper's text.
    """
    low = np.fmin.accumulate(np.concatenate([[state.minimum], confidence]))[1:]
    high = np.fmax.accumulate(np.concatenate([[state.maximum], confidence]))[1:]
    return _rescale(confidence, low, high)


def running_sum(confidence: np.ndarray, state: StreamState = StreamState()) -> np.ndarray:
    """Return c / (sum of c over the steps up to and including each); 0 if that sum is 0.

    (N,) float64 in stream order -> (N,) float64. Source: the authors' code.
    """
    total = np.cumsum(np.concatenate([[state.total], np.nan_to_num(confidence)]))[1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = confidence / total
    return np.where((total == 0) & ~np.isnan(confidence), 0.0, weight)


def advance(confidence: np.ndarray, state: StreamState = StreamState()) -> StreamState:
    """Return the state after the steps of `confidence`, from which another pass can resume."""
    seen = confidence[~np.isnan(confidence)]
    total = np.cumsum(np.concatenate([[state.total], seen]))[-1]
    return StreamState(
        float(min(state.minimum, seen.min(initial=np.inf))),
        float(max(state.maximum, seen.max(initial=-np.inf))),
        float(total),
    )


def global_minmax(confidence: np.ndarray) -> np.ndarray:
    """Return min-max over the complete set: independent of the order, but not online."""
    state = advance(confidence)
    return _rescale(confidence, np.array(state.minimum), np.array(state.maximum))


def unadjusted(confidence: np.ndarray) -> np.ndarray:
    """Return the confidences unchanged."""
    return confidence


@dataclass(frozen=True)
class Adjustment:
    """A function from confidences to weights; `ordered` if the stream's order matters."""

    apply: Callable[[np.ndarray], np.ndarray]
    ordered: bool


ADJUSTMENTS = {
    "minmax": Adjustment(minmax, ordered=True),
    "running-sum": Adjustment(running_sum, ordered=True),
    "global": Adjustment(global_minmax, ordered=False),
    "none": Adjustment(unadjusted, ordered=False),
}


def _rescale(confidence: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (confidence - low) / (high - low)
    return np.where((high == low) & ~np.isnan(confidence), 0.5, scaled)
