"""`clip`: CLIP's own scores, the zero-shot baseline."""

from __future__ import annotations

import numpy as np

from xmore.methods.base import Method, Scores, Weights


class Clip(Method):
    """Class scores are the image scores."""

    name = "clip"
    version = 1
    needs = frozenset({"image_scores"})

    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        return scores.image.astype(np.float64)


METHOD = Clip()
