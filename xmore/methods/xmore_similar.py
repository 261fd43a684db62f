"""`xmore-similar`: X-MoRe with captions weighted by their similarity to the image."""

from __future__ import annotations

import numpy as np

from xmore.methods.caption_weights import WeighsCaptions


class XmoreSimilar(WeighsCaptions):
    """Ours: the text scores are a weighted mean, by softmax(tau <v, caption>) over the captions.

    A caption that hardly suits the image says as much as any other in the paper's plain mean.
    """

    name = "xmore-similar"
    version = 1

    def caption_weights(
        self, image: np.ndarray, captions: np.ndarray, probabilities: np.ndarray, tau: float
    ) -> np.ndarray:
        from scipy.special import softmax

        return softmax(tau * np.einsum("qd,qmd->qm", image, captions).astype(np.float64), axis=1)


METHOD = XmoreSimilar()
