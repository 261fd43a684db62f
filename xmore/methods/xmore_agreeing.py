"""`xmore-agreeing`: X-MoRe with captions weighted by their agreement with the other captions."""

from __future__ import annotations

import numpy as np

from xmore.methods.caption_weights import WeighsCaptions


class XmoreAgreeing(WeighsCaptions):
    """Ours: the text scores are a mean weighted by a caption's agreement with the others.

    The agreement of two captions is the probability that a class drawn by one is that drawn by the
    other. What one caption alone says then counts little, however sure it is of it.
    """

    name = "xmore-agreeing"
    version = 1

    def caption_weights(
        self, image: np.ndarray, captions: np.ndarray, probabilities: np.ndarray, tau: float
    ) -> np.ndarray:
        m = probabilities.shape[1]
        if m == 1:
            return np.ones(probabilities.shape[:2])
        total = probabilities.sum(axis=1, keepdims=True)
        others = np.einsum("qmc,qmc->qm", probabilities, total - probabilities)
        return others / others.sum(axis=1, keepdims=True)


METHOD = XmoreAgreeing()
