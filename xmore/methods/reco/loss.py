"""RECO's loss: refined embeddings agree with each other and with the original ones."""

from __future__ import annotations

import torch
from torch.nn import functional


def info_nce(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the InfoNCE loss of matching rows of (B, D) `a` and `b` within the batch.

    It is the mean of both directions' cross entropy, as in CLIP. Equal captions in a batch count as
    different ones.
    """
    logits, own = scale * a @ b.T, torch.arange(len(a), device=a.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def alignment(
    original: tuple[torch.Tensor, torch.Tensor],
    refined: tuple[torch.Tensor, torch.Tensor],
    scale: torch.Tensor,
) -> torch.Tensor:
    """Return the sum of three InfoNCE losses: refined pairs, and each refined with an original.

    Pairs are (images, texts), (B, D) unit rows each. The paper aligns these; InfoNCE with equal
    weights and one learned temperature is not verified against it.
    """
    (v, t), (refined_v, refined_t) = original, refined
    return (
        info_nce(refined_v, refined_t, scale)
        + info_nce(refined_v, t, scale)
        + info_nce(v, refined_t, scale)
    )
