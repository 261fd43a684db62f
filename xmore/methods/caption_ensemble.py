"""`caption-ensemble`: the text scores alone (paper Table 1)."""

from __future__ import annotations

import numpy as np

from xmore.methods.base import (
    Method,
    MethodRequest,
    Scores,
    Settings,
    Variant,
    Weights,
    retrieval_settings,
)


class CaptionEnsemble(Method):
    """Class scores are the text scores; no prediction for a query without captions."""

    name = "caption-ensemble"
    version = 1
    needs = frozenset({"text_scores"})

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        return retrieval_settings(request)

    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        return scores.text.astype(np.float64)


METHOD = CaptionEnsemble()
