"""`xmore-product`: X-MoRe's two opinions multiplied instead of added."""

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


class XmoreProduct(Method):
    """Ours: P is proportional to P_I^a P_T^(1 - a), a = c_I / (c_I + c_T), the raw confidences.

    A sum answers a class that one opinion likes; a product one that neither dislikes. Without
    captions P_I.
    """

    name = "xmore-product"
    version = 1
    needs = frozenset({"image_scores", "text_scores"})

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        return retrieval_settings(request)

    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        from scipy.special import softmax

        from xmore.methods.scoring import confidence

        image = scores.image.astype(np.float64)
        covered = ~np.isnan(scores.text).any(axis=1)
        if not covered.any():
            return image
        mine, text = scores.image[covered], scores.text[covered]
        own, other = confidence(mine)[:, None], confidence(text)[:, None]
        silent = (own + other) == 0
        share = np.where(silent, 0.5, own / np.where(silent, 1, own + other))
        tiny = np.finfo(np.float32).tiny  # a score that float32 has rounded to 0
        logs = [np.log(np.maximum(of, tiny).astype(np.float64)) for of in (mine, text)]
        image[covered] = softmax(share * logs[0] + (1 - share) * logs[1], axis=1)
        return image


METHOD = XmoreProduct()
