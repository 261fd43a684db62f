"""Precision: a model's identity, what its towers compute in, and how near that is to float32."""

import logging

import numpy as np
import pytest
import torch
from at_random import Encoder
from torch import nn

from xmore.config.benchmark import BenchmarkConfig
from xmore.files.errors import ModelError
from xmore.models import precision
from xmore.models.loaded import load_encoder
from xmore.models.spec import ModelSpec, describe_model, same_model, same_space

NEAR = {"tf32": 0, "bf16": 0.04, "fp16": 0.006}  # on a CPU, TF32 is float32


def card_of(world, tmp_path, **more):
    spec = ModelSpec(folder=world.root / "models" / "lite0", **more)
    return describe_model("m", spec, tmp_path / "cache")


def test_it_is_part_of_an_identity_unless_it_is_fp32(world, tmp_path):
    plain = card_of(world, tmp_path)
    assert card_of(world, tmp_path, precision="fp32") == ModelSpecless(plain, "fp32")
    assert "precision" not in plain.identity and plain.precision == "fp32"
    cards = [card_of(world, tmp_path, precision=name) for name in NEAR]
    assert [card.precision for card in cards] == list(NEAR)
    assert len({plain.digest, *(card.digest for card in cards)}) == 4
    for card in cards:
        assert not same_model(card.identity, plain.identity)
        assert same_space(card.identity, plain.identity)
        assert card.as_in(plain.identity) == card, "a memory in fp32 is not taken for its own"
    other = plain.identity | {"weights_sha256": ""}
    assert not same_space(other, cards[0].identity)


def ModelSpecless(card, name):
    """The same card, whose spec says what is the default."""
    return type(card)(card.name, card.spec.model_copy(update={"precision": name}), card.identity)


def test_a_config_has_one_for_all_its_models(world):
    models = {"lite0": {"folder": "m"}, "lite2": {"folder": "m", "precision": "fp32"}}
    roles = {"inference": ["lite0"], "coarse": "lite2", "fine": "RN50/openai"}
    config = BenchmarkConfig(
        datasets=["x"], memory="m", models=models, roles=roles, precision="fp16"
    )
    found = {name: config.model(name).precision for name in ("lite0", "lite2", "RN50/openai")}
    assert found == {"lite0": "fp16", "lite2": "fp32", "RN50/openai": "fp16"}


@pytest.mark.parametrize("name", NEAR)
def test_towers_compute_in_it_and_features_are_float32(real_models, tmp_path, name):
    cards = [
        describe_model("m", ModelSpec(folder=real_models / "lite0", precision=each), tmp_path)
        for each in ("fp32", name)
    ]
    pixels = torch.randint(0, 256, (2, 224, 224, 3), generator=torch.Generator().manual_seed(0))
    exact, near = (load_encoder(card, "cpu") for card in cards)
    images = [e.encode_images(e.normalise(pixels.to(torch.uint8))) for e in (exact, near)]
    texts = [e.encode_texts(["a bird", "the sea and a boat"]).unit for e in (exact, near)]
    for one, other in (images, texts):
        assert other.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(other, axis=1), 1, atol=1e-6)
        assert np.abs(other - one).max() <= NEAR[name]
        assert (one != other).any() or not NEAR[name]
    assert near.logit_scale == exact.logit_scale, "what follows the towers is not rounded"


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_weights_are_rounded_and_batch_norm_keeps_its_own_numbers(name, device):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    model[1].running_var.fill_(1e6)  # fp16 ends at 65,504
    mean, weight = model[1].running_mean.uniform_().clone(), model[3].weight.detach().clone()
    precision.convert(model.eval(), name, device)
    dtype = precision.dtype_of(name, device)
    assert (
        model[3].weight.dtype
        == dtype
        == (torch.float32 if device == "cpu" else precision.IN_16_BITS[name])
    )
    assert torch.equal(model[3].weight.float(), weight.to(precision.IN_16_BITS[name]).float())
    assert model[1].running_var.dtype == torch.float32 and model[1].running_var.max() == 1e6
    assert torch.equal(model[1].running_mean, mean)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_on_a_cpu_layers_are_given_and_give_16_bits(name):
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    precision.convert(model, name, "cpu")
    seen = []
    hook = lambda _, given, out: seen.extend([given[0], out])  # noqa: E731
    for layer in model:
        layer.register_forward_hook(hook)
    model(torch.rand(3, 8))
    assert len(seen) == 4
    for each in seen:
        assert torch.equal(each, each.to(precision.IN_16_BITS[name]).float())


def test_only_tf32_models_allow_tf32_and_only_meanwhile():
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    for name in ("fp32", "tf32", "bf16", "fp16"):
        with precision.computing(name):
            assert {flag.allow_tf32 for flag in flags} == {name == "tf32"}
    with pytest.raises(ZeroDivisionError), precision.computing("tf32"):
        _ = 1 / 0
    assert {flag.allow_tf32 for flag in flags} == {False}


def test_what_exceeds_fp16_is_refused(world, tmp_path, monkeypatch):
    beyond = torch.tensor([[0.5, torch.inf]]).numpy
    for name in ("bf16", "fp16"):
        encoder = load_encoder(card_of(world, tmp_path, precision=name), "cpu")
        monkeypatch.setattr(encoder, "start_images", lambda _: beyond)
        if name == "bf16":  # it has float32's range: what is no number here is none there
            assert np.isinf(encoder.encode_images(torch.ones(1))).any()
    with pytest.raises(ModelError, match=r"`m`: some .* exceed .* fp16\. Set `precision: bf16`"):
        encoder.encode_images(torch.ones(1))


def test_a_gpu_in_fp32_is_said_once(caplog):
    precision._say_cost.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name, device in (
            ("fp32", "cpu"),
            ("fp16", "cuda"),
            ("fp32", "cuda"),
            ("fp32", "cuda:1"),
        ):
            precision.say_cost(name, device)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["`precision"]
    assert "4 to 7 times" in caplog.text


@pytest.mark.parametrize("name", [pytest.param("RN50", marks=pytest.mark.slow), "ViT-B-32"])
def test_open_clips_own_towers_take_16_bits(name):
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tokens = Encoder(name).tokenizer(["a photo of a cat"])
    found = {}
    for each in ("fp32", "bf16"):
        encoder = Encoder(name, each)
        with torch.inference_mode():
            image = encoder.model.encode_image(pixels).float()
            text = encoder.model.encode_text(tokens).float()
        found[each] = [nn.functional.normalize(x, dim=-1) for x in (image, text)]
    for exact, near in zip(*found.values(), strict=True):
        assert 0 < (exact - near).abs().max() < 0.01
