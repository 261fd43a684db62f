"""Checkpoints whose activation is not their architecture's are refused."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xmore.files.digests import digest_file
from xmore.files.errors import ModelError
from xmore.models import zoo
from xmore.models.spec import ModelSpec, describe_model


def weights(folder: Path, halves: bool, scale: float, suffix: str = "safetensors") -> Path:
    """The telltale tensors of a checkpoint."""
    torch.manual_seed(0)
    names = ("visual.conv1.weight", "text_projection", "positional_embedding")
    tensors = {name: torch.randn(8, 8) for name in names}
    if halves:
        tensors = {name: tensor.half().float() for name, tensor in tensors.items()}
    tensors["logit_scale"] = torch.tensor(scale)
    path = folder / f"weights.{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    return path


def describe(path: Path, architecture: str, tmp_path: Path, **more):
    spec = ModelSpec(architecture=architecture, checkpoint=path, **more)
    return describe_model("mine", spec, tmp_path / "cache")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_values_like_openais_need_quickgelu(tmp_path, suffix):
    path = weights(tmp_path, True, math.log(100), suffix)
    with pytest.raises(ModelError, match=r"needs QuickGELU .*architecture: RN50-quickgelu"):
        describe(path, "RN50", tmp_path)
    plain = describe(path, "RN50-quickgelu", tmp_path)
    forced = describe(path, "RN50", tmp_path, activation="quick_gelu")
    trusted = describe(path, "RN50", tmp_path, activation="gelu")
    assert forced.identity["preprocess"] == {"quick_gelu": True}
    assert len({plain.digest, forced.digest, trusted.digest}) == 3


@pytest.mark.parametrize(("halves", "scale"), [(False, math.log(100)), (True, 2.66)])
def test_values_of_others_say_nothing(tmp_path, halves, scale):
    path = weights(tmp_path, halves, scale)
    describe(path, "RN50", tmp_path)
    describe(path, "RN50-quickgelu", tmp_path)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_config_beside_the_weights_is_believed(tmp_path, quick_gelu):
    path = weights(tmp_path, False, 1.0)
    config = {"model_cfg": {"quick_gelu": quick_gelu}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    right, wrong = ("ViT-B-16-quickgelu", "ViT-B-16")[:: 1 if quick_gelu else -1]
    describe(path, right, tmp_path)
    with pytest.raises(ModelError, match=f"next to it.*architecture: {right}`"):
        describe(path, wrong, tmp_path)


def test_a_file_of_open_clips_is_known_by_its_place_and_by_its_hash(tmp_path, monkeypatch):
    pretrained = zoo.pretrained()
    hub = pretrained.get_pretrained_cfg("RN50", "openai")["hf_hub"].rstrip("/")
    place = tmp_path / f"models--{hub.replace('/', '--')}" / "snapshots" / "abc"
    with pytest.raises(ModelError, match="it is RN50/openai"):
        describe(weights(place, False, 1.0), "RN50", tmp_path)
    path = weights(tmp_path / "renamed", False, 1.0)
    url = f"https://openaipublic.azureedge.net/clip/models/{digest_file(path)}/RN50.pt"
    known = pretrained._PRETRAINED["RN50"]
    monkeypatch.setitem(known, "mine", {"url": url, "quick_gelu": True})
    with pytest.raises(ModelError, match="it is RN50/mine"):
        describe(path, "RN50", tmp_path)


def test_a_tag_without_quickgelu_is_not_run_with_it(tmp_path):
    spec = ModelSpec.from_name("ViT-B-16-quickgelu/laion2b_s34b_b88k")
    with pytest.raises(ModelError, match="no pretrained tag"):
        describe_model("mine", spec, tmp_path)


def test_an_activation_that_contradicts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="contradicts"):
        ModelSpec(architecture="RN50-quickgelu", checkpoint=tmp_path, activation="gelu")
    with pytest.raises(ValueError, match="needs a `checkpoint`"):
        ModelSpec(folder=tmp_path, activation="gelu")
