"""`equal`: image and text scores with the same weight (paper Table 5)."""

from __future__ import annotations

import numpy as np

from xmore.methods.base import (
    Method,
    MethodRequest,
    Scores,
    Settings,
    Stream,
    Variant,
    Weights,
    combine,
    retrieval_settings,
)


class Equal(Method):
    """Weights 0.5 and 0.5; 1 and 0 without captions."""

    name = "equal"
    version = 1
    needs = frozenset({"image_scores", "text_scores"})

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        return retrieval_settings(request)

    def weights(self, stream: Stream, variant: Variant) -> Weights:
        covered = ~np.isnan(stream.text_confidence)
        return Weights(np.where(covered, 0.5, 1.0), np.where(covered, 0.5, 0.0))

    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        return combine(scores, weights)


METHOD = Equal()
