"""`coder-captions`: CODER whose neighbour texts are the captions retrieved for the image."""

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


class CoderCaptions(Scorer):
    """Ours: the image is its similarities to its captions, and so is each class.

    A class's score is the mean of its own similarity to the image, and of its similarities to the
    captions, each caption counting by how near the image is to it: softmax(tau <v, caption>) over
    the query's captions. All classes are seen through the same captions, so that none gains or
    loses by having few. A query without captions has CLIP's answer.
    """

    name = "coder-captions"
    version = 2  # 1 gave each caption to its nearest class alone
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


def coded(captions: list[list[str]]) -> tuple[np.ndarray, list[str]]:
    """Each query's captions as rows of the distinct ones: (Q, M) int64, -1 for none."""
    row: dict[str, int] = {}
    codes = np.full((len(captions), max(map(len, captions), default=0)), -1, np.int64)
    for query, of_query in enumerate(captions):
        for rank, caption in enumerate(of_query):
            codes[query, rank] = row.setdefault(caption, len(row))
    return codes, list(row)


def with_captions(
    images: np.ndarray, captions: np.ndarray, codes: np.ndarray, tau: float
) -> np.ndarray:
    """The mean of each image and what its captions say: (Q, D) float32, not normalised.

    (Q, D) images and (U, D) captions, float32 unit rows; codes (Q, M) are rows of `captions`, -1
    for none. Its inner product with a class is the method's score before tau: similarities to
    captions, weighted and added up, are the similarity to the captions' weighted sum.
    """
    from scipy.special import softmax

    from xmore.memory.captions import fine_similarities

    mixed = images.copy()
    some = np.flatnonzero((codes >= 0).any(axis=1))
    if not len(some):
        return mixed
    weights = softmax(tau * fine_similarities(images[some], captions, codes[some]), axis=1)
    for rank in range(codes.shape[1]):  # absent ones weigh nothing
        of_rank = captions[np.maximum(codes[some, rank], 0)]
        mixed[some] += weights[:, rank, None] * of_rank
    mixed[some] /= 2
    return mixed


METHOD = CoderCaptions()
