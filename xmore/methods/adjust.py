"""Adjustments: how confidences become weights as queries come one by one (design step 7).

Each modality is adjusted on its own. NaN stands for a query without captions: it takes a step
but moves no state, and gets NaN here. Every pass costs O(N) and equals the one-by-one loop to
the last bit, also when it goes on from the state that another pass has left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StreamState:
    """What the ordered pass remembers of one modality after some steps."""

    minimum: float = np.inf
    maximum: float = -np.inf
    total: float = 0.0


def stream_order(queries: int, seed: int) -> np.ndarray:
    """The order in which queries come: (N,) positions among queries sorted by query_id."""
    return np.random.default_rng(seed).permutation(queries)


def minmax(confidence: np.ndarray, state: StreamState = StreamState()) -> np.ndarray:
    """(c - min) / (max - min) over the steps so far, this one included; 0.5 where max = min.

    (N,) float64 in stream order -> (N,) float64. The paper's text.
    """
    low = np.fmin.accumulate(np.concatenate([[state.minimum], confidence]))[1:]
    high = np.fmax.accumulate(np.concatenate([[state.maximum], confidence]))[1:]
    return _rescale(confidence, low, high)


def running_sum(confidence: np.ndarray, state: StreamState = StreamState()) -> np.ndarray:
    """c / (sum of c over the steps so far); 0 where that sum is 0. The authors' code."""
    total = np.cumsum(np.concatenate([[state.total], np.nan_to_num(confidence)]))[1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = confidence / total
    return np.where((total == 0) & ~np.isnan(confidence), 0.0, weight)


def advance(confidence: np.ndarray, state: StreamState = StreamState()) -> StreamState:
    """The state after the steps of `confidence`, to go on from."""
    seen = confidence[~np.isnan(confidence)]
    total = np.cumsum(np.concatenate([[state.total], seen]))[-1]
    return StreamState(
        float(min(state.minimum, seen.min(initial=np.inf))),
        float(max(state.maximum, seen.max(initial=-np.inf))),
        float(total),
    )


def global_minmax(confidence: np.ndarray) -> np.ndarray:
    """Min and max over the whole set: free of order, but not online."""
    state = advance(confidence)
    return _rescale(confidence, np.array(state.minimum), np.array(state.maximum))


def unadjusted(confidence: np.ndarray) -> np.ndarray:
    """The raw confidences."""
    return confidence


@dataclass(frozen=True)
class Adjustment:
    """A named way from confidences to weights; `ordered` if the stream's order matters."""

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
