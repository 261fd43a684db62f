"""`calip`: parameter-free attention between spatial positions and classes (Guo et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    ScoringContext,
    Setting,
    Settings,
    Variant,
    needed,
)

if TYPE_CHECKING:
    import torch

    from xmore.models.spec import ModelCard


class Calip(Scorer):
    """CLIP's logits plus those of visual-guided texts and of the text-guided image.

    As in the public code, the attention is scaled by 2 and nothing is normalised again after the
    pooling. That code searches its betas on the test labels. Here one fixed pair is used for all
    datasets, by default the middle of the ranges of that search.
    """

    name = "calip"
    version = 1
    needs = frozenset({"pixels"})

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        from xmore.models.spatial import check_spatial

        check_spatial(model)

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        beta2, beta3 = self.betas(request)
        return {"beta2": Setting(beta2, "fixed"), "beta3": Setting(beta3, "fixed")}

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        return {"betas": list(self.betas(request))}

    def betas(self, request: MethodRequest) -> tuple[float, float]:
        """Return beta2 and beta3; beta1 is 1."""
        return request.options.calip.beta2, request.options.calip.beta3

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        import torch
        from scipy.special import softmax

        from xmore.models.spatial import spatial_features

        encoder, betas = context.load(), self.betas(context.request)
        texts = torch.from_numpy(context.class_features).to(encoder.device)

        def logits_of(pixels: torch.Tensor) -> np.ndarray:
            image, positions = spatial_features(encoder, encoder.normalise(pixels))
            return context.tau * attended(image, positions, texts, betas).cpu().numpy()

        def score(shard: QueryShard) -> np.ndarray:
            logits = []
            for pixels in needed(shard.pixels)():
                logits += encoder.in_parts(logits_of, pixels)
            return softmax(np.concatenate(logits).astype(np.float64), axis=1)

        return score


def attended(
    image: torch.Tensor, positions: torch.Tensor, texts: torch.Tensor, betas: tuple[float, float]
) -> torch.Tensor:
    """Return the weighted sum of the three inner products, before tau: (N, C).

    `image` are (N, D) images, `positions` (N, P, D) spatial positions and `texts` (C, D) classes,
    all unit rows. Memory: twice the attention, N x P x C. The visual-guided texts (N x C x D) are
    never computed: their inner products with the image are the attended ones of its positions.
    """
    attention = 2 * positions @ texts.T  # (N, P, C)
    of_positions = (positions @ image.unsqueeze(-1)).squeeze(-1)  # (N, P)
    guided_texts = (attention.softmax(1) * of_positions.unsqueeze(-1)).sum(1)
    guided_positions = attention.softmax(2) @ texts  # (N, P, D)
    guided_image = guided_positions.mean(1) + guided_positions.amax(1)
    return image @ texts.T + betas[0] * guided_texts + betas[1] * guided_image @ texts.T


METHOD = Calip()
