"""X-MoRe's variants that weigh the captions of an image: what they have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    Scores,
    ScoringContext,
    Settings,
    Variant,
    Weights,
    combine,
    needed,
    retrieval_settings,
)

BLOCK = 16  # queries with one number of captions: 16 x 16 captions x 1,000 classes = 2 MB


class WeighsCaptions(Scorer):
    """Image scores and weighted text scores, each weighted by its raw confidence.

    P_T is a weighted mean over the captions, and P = (c_I P_I + c_T P_T) / (c_I + c_T), as `xmore
    none`; without captions P_I. The order of queries does not matter. Memory: BLOCK queries'
    captions x classes, and the distinct captions of a part.
    """

    needs = frozenset({"query_embeddings", "captions"})

    @abstractmethod
    def caption_weights(
        self, image: np.ndarray, captions: np.ndarray, probabilities: np.ndarray, tau: float
    ) -> np.ndarray:
        """Return the weights of M captions, rows that sum to 1: (Q, M) float64.

        `image` (Q, D) and `captions` (Q, M, D) are float32 unit rows, `probabilities` (Q, M, C)
        float64 of each caption.
        """

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        return retrieval_settings(request)

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        return {}

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        from xmore.methods.scoring import class_probabilities

        def score(shard: QueryShard) -> np.ndarray:
            images = needed(shard.features)
            codes, distinct = coded(needed(shard.captions))
            scores = class_probabilities(images, context.class_features, context.tau)
            counts = (codes >= 0).sum(axis=1)
            if not distinct:
                return scores
            texts = context.texts(distinct)
            for count in np.unique(counts[counts > 0]):
                which = np.flatnonzero(counts == count)
                for start in range(0, len(which), BLOCK):
                    rows = which[start : start + BLOCK]
                    captions = texts[codes[rows, :count]]
                    scores[rows] = self._combined(context, images[rows], captions, scores[rows])
            return scores

        return score

    def _combined(
        self, context: ScoringContext, image: np.ndarray, captions: np.ndarray, own: np.ndarray
    ) -> np.ndarray:
        from xmore.methods.scoring import class_probabilities, confidence

        flat = captions.reshape(-1, captions.shape[-1])
        each = class_probabilities(flat, context.class_features, context.tau)
        each = each.reshape(*captions.shape[:2], -1)
        weights = self.caption_weights(image, captions, each, context.tau)
        text = np.einsum("qm,qmc->qc", weights, each)
        return combine(Scores(own, text), Weights(confidence(own), confidence(text)))


def coded(captions: list[list[str]]) -> tuple[np.ndarray, list[str]]:
    """Return each query's captions as rows, (Q, M) int64 (-1 = none), of the distinct captions."""
    row: dict[str, int] = {}
    codes = np.full((len(captions), max(map(len, captions), default=0)), -1, np.int64)
    for query, of_query in enumerate(captions):
        for rank, caption in enumerate(of_query):
            codes[query, rank] = row.setdefault(caption, len(row))
    return codes, list(row)
