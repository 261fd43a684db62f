"""Spatial features: each position of an image tower's map, projected as the image is (CALIP)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from xmore.files.errors import ModelError
from xmore.models.encoder import OpenClipEncoder
from xmore.models.spec import ModelCard, architecture_config


def check_spatial(model: ModelCard) -> None:
    """Raise ModelError if an image tower's spatial positions cannot be projected one by one.

    Determined from the model's config, before any weight is read.
    """
    vision = architecture_config(model)["vision_cfg"]
    pools = {
        "timm_pool": vision.get("timm_pool", "avg") if "timm_model_name" in vision else "avg",
        "attentional_pool": vision.get("attentional_pool", False),
        "pool_type": vision.get("pool_type", "tok"),
    }
    fine = {
        "timm_pool": ("avg", "token", ""),
        "attentional_pool": (False,),
        "pool_type": ("tok", "avg"),
    }
    for name, value in pools.items():
        if value not in fine[name]:
            raise ModelError(
                f"model `{model.name}`: its image tower pools by attention (`{name}: {value}`), so "
                "it has no spatial features for `calip`. Remove `calip` from `methods`, or choose "
                "another inference model."
            )


@torch.inference_mode()
def spatial_features(
    encoder: OpenClipEncoder, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode (N, 3, H, W) float32 to image features (N, D) and those of P positions (N, P, D).

    All rows are float32 unit vectors; the tower computes in the model's precision. Positions are
    those of CALIP (Guo et al. 2023, section 3.1): all outputs of a ResNet's attention pool, a ViT's
    patch tokens after the last norm and projection, and a timm tower's feature map through its
    head. They stay on the device, as N x P x D is large.
    """
    visual: Any = encoder.model.visual
    batch = pixels.to(encoder.device, encoder.dtype, memory_format=torch.channels_last)
    with encoder.computing():
        if hasattr(visual, "trunk"):
            image, positions = _timm(visual, batch)
        elif hasattr(visual, "attnpool"):
            image, positions = _resnet(visual, batch)
        else:
            image, positions = _vit(visual, batch)
    return (
        functional.normalize(image.float(), dim=-1),
        functional.normalize(positions.float(), dim=-1),
    )


def _timm(visual: Any, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Project each position of the last map, or each token, as if the map consisted of it alone."""
    features = visual.trunk.forward_features(batch)
    image = visual.head(visual.trunk.forward_head(features))
    if features.ndim == 4:  # (N, C, H, W)
        n, channels = features.shape[:2]
        alone = features.flatten(2).transpose(1, 2).reshape(-1, channels, 1, 1)
    else:  # (N, tokens, C); prefix tokens come before the positions: a head skips or pools them
        prefix = getattr(visual.trunk, "num_prefix_tokens", 0)
        n, channels = len(features), features.shape[-1]
        alone = features[:, prefix:].reshape(-1, 1, channels).expand(-1, prefix + 1, -1)
    projected = visual.head(visual.trunk.forward_head(alone))
    return image, projected.view(n, -1, projected.shape[-1])


def _resnet(visual: Any, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all outputs of the attention pool; open_clip's own keeps only the first."""
    pool = visual.attnpool
    grid = visual.stem(batch)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        grid = layer(grid)
    tokens = grid.flatten(2).permute(2, 0, 1)  # (P, N, C)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + pool.positional_embedding[:, None]
    out, _ = functional.multi_head_attention_forward(
        tokens,
        tokens,
        tokens,
        embed_dim_to_check=tokens.shape[-1],
        num_heads=pool.num_heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        training=False,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    return out[0], out[1:].transpose(0, 1)


def _vit(visual: Any, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run open_clip's forward pass up to the tokens, then project each as the class token is."""
    tokens = visual.transformer(visual._embeds(batch))
    pooled, positions = visual._pool(tokens)
    if visual.final_ln_after_pool:
        positions = visual.ln_post(positions)
    return pooled @ visual.proj, positions @ visual.proj
