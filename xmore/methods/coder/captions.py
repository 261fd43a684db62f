"""`coder-captions`: CODER with the captions retrieved for the image as neighbour texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    ScoringContext,
    Settings,
    Variant,
    needed,
    retrieval_settings,
)
from xmore.methods.caption_weights import coded


class CoderCaptions(Scorer):
    """Ours: image and classes are both represented by their similarities to the captions.

    A class's score is the mean of its similarity to the image and its weighted similarity to the
    captions. The weights are softmax(tau <v, caption>) over the query's captions. All classes are
    compared with the same captions, so that none gains or loses by having few. A query without
    captions has CLIP's own scores.
    """

    name = "coder-captions"
    version = 2  # version 1 assigned each caption to its nearest class only
    needs = frozenset({"query_embeddings", "captions"})

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        return retrieval_settings(request)

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        return {}

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        from xmore.methods.scoring import class_probabilities

        def score(shard: QueryShard) -> np.ndarray:
            codes, distinct = coded(needed(shard.captions))
            features = needed(shard.features)
            captions = context.texts(distinct) if distinct else features[:0]
            mixed = with_captions(features, captions, codes, context.tau)
            return class_probabilities(mixed, context.class_features, context.tau)

        return score


def with_captions(
    images: np.ndarray, captions: np.ndarray, codes: np.ndarray, tau: float
) -> np.ndarray:
    """Return the mean of each image and its captions' weighted sum: (Q, D) float32, not normalised.

    `images` (Q, D) and `captions` (U, D) are float32 unit rows; `codes` (Q, M) are rows of
    `captions`, -1 for none. The inner product of a result with a class is the method's score
    before tau: the weighted sum of similarities is the similarity to the weighted sum.
    """
    from scipy.special import softmax

    from xmore.memory.captions import fine_similarities

    mixed = images.copy()
    some = np.flatnonzero((codes >= 0).any(axis=1))
    if not len(some):
        return mixed
    weights = softmax(tau * fine_similarities(images[some], captions, codes[some]), axis=1)
    for rank in range(codes.shape[1]):  # absent captions have weight 0
        of_rank = captions[np.maximum(codes[some, rank], 0)]
        mixed[some] += weights[:, rank, None] * of_rank
    mixed[some] /= 2
    return mixed


METHOD = CoderCaptions()
