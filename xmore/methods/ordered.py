"""The interface of a method whose own scores depend on the queries that came before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xmore.methods.base import MethodRequest, QueryShard, Scorer, ScoringContext, Variant


@dataclass(frozen=True)
class Evidence:
    """What is known of Q queries before any order; the stage `method_scores` stores it."""

    class_scores: np.ndarray  # (Q, C) float64 probabilities
    features: np.ndarray  # (Q, D) float32
    entropy: np.ndarray  # (Q,) float64, in nats
    near: np.ndarray  # (Q, C) bool: the classes that the query may be


@dataclass(frozen=True)
class Stream:
    """The evidence of a complete stream, by query_id. Memory: 16 bytes per query."""

    prediction: np.ndarray  # (N,) int64: the class of the highest score
    entropy: np.ndarray  # (N,) float64
    classes: int  # C
    features: Callable[[np.ndarray], np.ndarray]  # (n,) positions -> (n, D) float32
    near: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # -> values, and their counts


Answer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""steps (Q,), class_scores (Q, C) and features (Q, D) of some queries -> (Q, C) float64."""


class OrderedScorer(Scorer):
    """A Scorer that answers each query by what the stream has shown up to its step.

    `evidence` is computed once; `follow` passes over the stream once per order, and finds what is
    known at each step. Then queries are answered in any order.
    """

    def variants(self, adjustments: Sequence[str], seeds: Sequence[int]) -> list[Variant]:
        return [Variant(seed=seed) for seed in seeds] or [Variant()]

    @abstractmethod
    def evidence(self, context: ScoringContext) -> Callable[[QueryShard], Evidence]:
        """Return a function from a shard to its evidence; called once."""

    @abstractmethod
    def follow(self, stream: Stream, order: np.ndarray, request: MethodRequest) -> Answer:
        """Return what answers queries; `order` (N,) has the stream's positions, step by step."""

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        found = self.evidence(context)
        return lambda shard: found(shard).class_scores
