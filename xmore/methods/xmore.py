"""`xmore`: image and text scores, weighted by adjusted confidences (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xmore.methods.adjust import ADJUSTMENTS, steps_of, stream_order
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
    setting,
)


class Xmore(Method):
    """The method of the paper, under each adjustment and, if the order matters, each seed."""

    name = "xmore"
    version = 1
    needs = frozenset({"image_scores", "text_scores"})

    def variants(self, adjustments: Sequence[str], seeds: Sequence[int]) -> list[Variant]:
        return [
            Variant(name, seed)
            for name in adjustments
            for seed in (seeds if ADJUSTMENTS[name].ordered else [None])
        ]

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        return retrieval_settings(request) | {"adjustment": setting(variant.adjustment, "minmax")}

    def weights(self, stream: Stream, variant: Variant) -> Weights:
        adjustment = ADJUSTMENTS[str(variant.adjustment)]
        n = len(stream.image_confidence)
        order = stream_order(n, variant.seed)
        image, text = np.empty(n), np.empty(n)
        image[order] = adjustment.apply(stream.image_confidence[order])
        text[order] = adjustment.apply(stream.text_confidence[order])
        covered = ~np.isnan(stream.text_confidence)
        step = None if variant.seed is None else steps_of(order)
        return Weights(np.where(covered, image, 1.0), np.where(covered, text, 0.0), step)

    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        return combine(scores, weights)


METHOD = Xmore()
