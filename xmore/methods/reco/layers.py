"""RECO: embeddings refined by their neighbours in a memory (Iscen et al., arXiv 2306.07196).

From the paper: the encoders stay frozen. An image's nearest memory images provide their *text*
embeddings, a text's nearest memory texts their *image* embeddings. One transformer layer per
modality fuses these with the original. Refined embeddings are trained to agree with each other and
with the original ones. Everything else is ours, and is marked as such.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

WIDTH = 4  # of the layer's feed-forward part, in multiples of the embeddings' dimensions: ours
FIRST_SCALE, LAST_SCALE = 1 / 0.07, 100.0  # initial and maximum scale, as in CLIP's training
AT = (1, 5, 10)  # recall@k


class Fusion(nn.Module):
    """One transformer layer over [query, its k retrieved embeddings].

    Ours: it normalises before attention, not after, and has no dropout and no positions. Its output
    at the query's position (by the skip connections, the query plus a learned term) is normalised.
    Both parts are initialised to end in zeros, so an untrained layer returns the query unchanged.
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
        """Fuse (B, D) with (B, K, D), unit rows, to (B, D); `missing` is (B, K) bool."""
        layer = self.layer
        tokens = layer.norm1(torch.cat([query[:, None], retrieved], 1))
        mask = functional.pad(missing, (1, 0), value=False)
        # Only the output at the query's position is computed: a quarter of the work.
        attended, _ = layer.self_attn(
            tokens[:, :1], tokens, tokens, key_padding_mask=mask, need_weights=False
        )
        fused = query + attended[:, 0]
        inner = functional.gelu(layer.linear1(layer.norm2(fused)))
        return functional.normalize(fused + layer.linear2(inner), dim=-1)


class Reco(nn.Module):
    """The layers of both modalities, and the temperature with which they are trained.

    `sides` are the modalities that retrieve; the embeddings of the other one stay unchanged.
    """

    def __init__(self, dim: int, heads: int, sides: Sequence[str], seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fusions = nn.ModuleDict({side: Fusion(dim, heads) for side in sides})
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    @property
    def scale(self) -> torch.Tensor:
        """The factor of inner products in training."""
        return self.log_scale.exp().clamp(max=LAST_SCALE)

    def refine(
        self, side: str, query: torch.Tensor, retrieved: torch.Tensor, missing: torch.Tensor
    ) -> torch.Tensor:
        """Return the refined embeddings of a modality that retrieves: see `Fusion.forward`.

        `retrieved` are embeddings of the other modality.
        """
        return self.fusions[side](query, retrieved, missing)


def hits(queries: np.ndarray, wanted: np.ndarray, k: int) -> np.ndarray:
    """Return, for row i of (N, D) `queries`, if row i of `wanted` is in the top k: (N,) bool.

    A tie counts as a miss. Memory: N x N similarities.
    """
    similarities = queries @ wanted.T
    own = np.diagonal(similarities)[:, None]
    return (similarities >= own).sum(1) <= k
