"""`tda`: a stream with caches of confident and of unsure images (Karmanov et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    ScoringContext,
    Setting,
    Settings,
    Variant,
    needed,
)
from xmore.methods.options import Source
from xmore.methods.ordered import Answer, Evidence, OrderedScorer, Stream
from xmore.methods.tda.answers import NEGATIVE_SIZE, POSITIVE_SIZE, Weighting, follow

NEGATIVE = Weighting(0.117, 1.0)  # the public code's, for all datasets
NEAR = 0.03  # least probability of a class from which the negative cache moves away


class Tda(OrderedScorer):
    """CLIP's logits, moved towards classes of similar confident images seen before, and away.

    z' = z + a_p sum exp(-b_p (1 - <v, key>)) [class] - a_n sum exp(-b_n (1 - <v, key>)) [near],
    over the items of the positive cache (3 per predicted class, of lowest entropy) and the negative
    one (2, of medium entropy; near: its classes of probability above 0.03). A query is offered to
    both before it is answered. One pair (a_p, b_p) serves all datasets: the public code's for
    ImageNet, which has another for each. Memory: see `Answers`.
    """

    name = "tda"
    version = 1
    needs = frozenset({"query_embeddings"})

    def positive(self, request: MethodRequest) -> tuple[Weighting, Source]:
        """Return how the positive cache moves scores, and the source of these two numbers."""
        return Weighting(2.0, 5.0), "fixed"

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        found, source = self.positive(request)
        return {
            "positive_alpha": Setting(found.alpha, source),
            "positive_beta": Setting(found.beta, source),
            "negative_alpha": Setting(NEGATIVE.alpha, "paper"),
            "negative_beta": Setting(NEGATIVE.beta, "paper"),
            "positive_items": Setting(POSITIVE_SIZE, "paper"),
            "negative_items": Setting(NEGATIVE_SIZE, "paper"),
        }

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        found, _ = self.positive(request)
        return {"positive": [found.alpha, found.beta]}

    def evidence(self, context: ScoringContext) -> Callable[[QueryShard], Evidence]:
        from xmore.methods.scoring import class_probabilities

        def read(shard: QueryShard) -> Evidence:
            features = needed(shard.features)
            scores = class_probabilities(features, context.class_features, context.tau)
            return evidence_of(features, scores, scores)

        return read

    def follow(self, stream: Stream, order: np.ndarray, request: MethodRequest) -> Answer:
        return follow(stream, order, (self.positive(request)[0], NEGATIVE))


def evidence_of(features: np.ndarray, scores: np.ndarray, mean: np.ndarray) -> Evidence:
    """Return what TDA knows of Q queries: (Q, D) and (Q, C), and the probabilities behind H and p.

    `scores` are softmax z; `mean` the same for one view, else the mean over augmented views.
    """
    from scipy.special import entr

    near = (mean > NEAR) & (mean < 1.0)
    return Evidence(scores, features.astype(np.float32, copy=False), entr(mean).sum(1), near)


METHOD = Tda()
