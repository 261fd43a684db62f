"""RECO: embeddings refined by what a memory holds next to them (Iscen et al., arXiv 2306.07196).

From the paper: the encoders stay frozen; an image's nearest memory images lend their *text*
embeddings, a text's nearest memory texts their *image* embeddings; one transformer layer a
modality fuses these with the original; refined embeddings are trained to agree with each other
and with the original ones. All else is ours, and its place says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

WIDTH = 4  # of the layer's feed-forward part, in dimensions of the embeddings: ours
FIRST_SCALE, LAST_SCALE = 1 / 0.07, 100.0  # of the learned temperature, as CLIP's own training
AT = (1, 5, 10)  # recall@k


class Fusion(nn.Module):
    """One transformer layer over [query, its k retrieved embeddings].

    Ours: it normalises before attention, not after, has no dropout and no positions, and
    its output at the query's place (which its skip connections make "query + what was learned") is
    normalised. Both parts end in zeros at first: an untrained layer gives the query as it came.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            dim, heads, WIDTH * dim, 0.0, "gelu", batch_first=True, norm_first=True
        )
        for last in (self.layer.self_attn.out_proj, self.layer.linear2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, query: torch.Tensor, retrieved: torch.Tensor, missing: torch.Tensor
    ) -> torch.Tensor:
        """(B, D), (B, K, D) unit rows, (B, K) bool True where there is none -> (B, D) unit rows."""
        layer = self.layer
        tokens = layer.norm1(torch.cat([query[:, None], retrieved], 1))
        mask = functional.pad(missing, (1, 0), value=False)
        # The layer's output at the query's place alone, a quarter of the work.
        attended, _ = layer.self_attn(
            tokens[:, :1], tokens, tokens, key_padding_mask=mask, need_weights=False
        )
        fused = query + attended[:, 0]
        inner = functional.gelu(layer.linear1(layer.norm2(fused)))
        return functional.normalize(fused + layer.linear2(inner), dim=-1)


class Reco(nn.Module):
    """Both modalities' layers, and the temperature that they are trained with.

    `sides` names the modalities that retrieve; the other's embeddings stay as they are.
    """

    def __init__(self, dim: int, heads: int, sides: Sequence[str], seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fusions = nn.ModuleDict({side: Fusion(dim, heads) for side in sides})
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    @property
    def scale(self) -> torch.Tensor:
        """What inner products are multiplied with in training."""
        return self.log_scale.exp().clamp(max=LAST_SCALE)

    def refine(
        self, side: str, query: torch.Tensor, retrieved: torch.Tensor, missing: torch.Tensor
    ) -> torch.Tensor:
        """Refined embeddings of a side that retrieves, see `Fusion.forward`.

        `retrieved` are embeddings of the other modality.
        """
        return self.fusions[side](query, retrieved, missing)


def info_nce(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """How surely each row of (B, D) `a` tells its own of `b` from the batch's, and b's of a's.

    The mean of both directions' cross entropy, as CLIP's. Equal captions in a batch are not told
    apart from others.
    """
    logits, own = scale * a @ b.T, torch.arange(len(a), device=a.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def alignment(
    original: tuple[torch.Tensor, torch.Tensor],
    refined: tuple[torch.Tensor, torch.Tensor],
    scale: torch.Tensor,
) -> torch.Tensor:
    """Refined with refined, and each refined with the other's original: InfoNCE, added up.

    Pairs are (images, texts), (B, D) unit rows each. That these are aligned is the paper's; that it
    is InfoNCE of equal weights and with one learned temperature is not verified against it.
    """
    (v, t), (refined_v, refined_t) = original, refined
    return (
        info_nce(refined_v, refined_t, scale)
        + info_nce(refined_v, t, scale)
        + info_nce(v, refined_t, scale)
    )


def hits(queries: np.ndarray, wanted: np.ndarray, k: int) -> np.ndarray:
    """Whether row i of (N, D) `wanted` is among the k nearest to row i of `queries`: (N,) bool.

    A tie counts as lost. Holds N x N similarities.
    """
    similarities = queries @ wanted.T
    own = np.diagonal(similarities)[:, None]
    return (similarities >= own).sum(1) <= k
