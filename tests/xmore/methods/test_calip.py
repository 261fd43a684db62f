"""CALIP against its formulas, and spatial features against the towers' own forward passes."""

import math

import numpy as np
import pytest
import torch
from at_random import Encoder, unit
from scipy.special import softmax
from torch import nn

from xmore.files.errors import ConfigError, ModelError
from xmore.methods.base import MethodRequest, QueryShard, ScoringContext
from xmore.methods.calip import attended
from xmore.methods.options import CalipOptions, MethodOptions
from xmore.methods.registry import METHODS
from xmore.models.spatial import check_spatial, spatial_features
from xmore.models.spec import ModelCard, ModelSpec


def literal(whole, places, texts, betas):
    """One image after another, in the symbols of the public code."""
    rows = []
    for fv, fs in zip(whole.astype(np.float64), places.astype(np.float64), strict=True):
        ft = texts.astype(np.float64).T  # (d, C)
        a = 2 * fs @ ft  # (HW, C)
        ft_a = fs.T @ softmax(a, axis=0)  # (d, C)
        fv_a = softmax(a, axis=1) @ ft.T  # (HW, d)
        pooled = fv_a.mean(0) + fv_a.max(0)
        rows.append(100 * fv @ ft + betas[0] * 100 * fv @ ft_a + betas[1] * 100 * pooled @ ft)
    return np.array(rows)


def test_logits_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    whole, places, texts = unit(rng, 5, 32), unit(rng, 5, 9, 32), unit(rng, 7, 32)
    for betas in ((1.0, 0.085), (5.0, 0.18), (0.0, 0.0)):
        tensors = (torch.from_numpy(x) for x in (whole, places, texts))
        got = 100 * attended(*tensors, betas).numpy()
        np.testing.assert_allclose(got, literal(whole, places, texts, betas), rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module", params=["RN50", "ViT-B-32"])
def encoder(request):
    return Encoder(request.param)


def tokens_by_hook(visual, pixels):
    """All outputs of the last block, caught on their way through the tower's own forward pass."""
    caught = []
    layer = visual.attnpool if hasattr(visual, "attnpool") else visual.ln_post
    hook = layer.register_forward_hook(lambda _, args, out: caught.append((args[0], out)))
    visual(pixels)
    hook.remove()
    return caught[0]


@torch.inference_mode()
def test_places_of_open_clips_towers(encoder):
    pixels = torch.rand(2, 3, 224, 224)
    whole, places = spatial_features(encoder, pixels)
    own = encoder.model.encode_image(pixels, normalize=True)
    torch.testing.assert_close(whole, own, atol=1e-5, rtol=1e-4)
    assert places.shape == (2, 49, own.shape[1])
    visual = encoder.model.visual
    given, out = tokens_by_hook(visual, pixels)
    if hasattr(visual, "proj"):  # a ViT: after the last norm, each token is projected
        expected = out[:, 1:] @ visual.proj
    else:  # attention written out, head by head
        expected = attention(visual.attnpool, given)[:, 1:]
    expected = nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(places, expected, atol=1e-5, rtol=1e-4)


def attention(pool, grid):
    channels = grid.shape[1]
    tokens = grid.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
    width = channels // pool.num_heads
    out = torch.empty_like(tokens)
    for head in range(pool.num_heads):
        at = slice(head * width, (head + 1) * width)
        q, k, v = (p(tokens)[..., at] for p in (pool.q_proj, pool.k_proj, pool.v_proj))
        out[..., at] = (q @ k.transpose(1, 2) / math.sqrt(width)).softmax(-1) @ v
    return pool.c_proj(out)


@pytest.mark.slow
def test_places_of_the_demos_model(real_models, tmp_path):
    from xmore.models.loaded import load_encoder
    from xmore.models.spec import describe_model

    spec = ModelSpec(folder=real_models / "lite0")
    model = describe_model("lite0", spec, tmp_path)
    check_spatial(model)
    encoder = load_encoder(model, "cpu")
    pixels = torch.randn(2, 3, 224, 224)
    whole, places = spatial_features(encoder, pixels)
    np.testing.assert_allclose(whole, encoder.encode_images(pixels), atol=1e-5)
    trunk = encoder.model.visual.trunk
    with torch.inference_mode():
        grid = trunk.forward_features(pixels)
        one = trunk.forward_head(grid[1:, :, 3:4, 2:3])  # the place in row 3, column 2
    assert places.shape == (2, 49, 384)
    torch.testing.assert_close(places[1, 3 * 7 + 2], nn.functional.normalize(one[0], dim=-1))


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16", "ViT-B-32-quickgelu", "EVA02-B-16"])
def test_towers_that_serve(name):
    check_spatial(ModelCard("x", ModelSpec(architecture=name, pretrained="openai"), {}))


@pytest.mark.parametrize("name", ["coca_ViT-B-32", "ViT-B-16-SigLIP"])
def test_towers_that_pool_by_attention_are_refused(name):
    card = ModelCard("mine", ModelSpec(architecture=name, pretrained="x"), {})
    with pytest.raises(ModelError, match="`mine`: its image tower pools by attention"):
        check_spatial(card)


def test_the_method_is_a_softmax_of_its_logits(encoder):
    rng = np.random.default_rng(1)
    width = encoder.model.visual.output_dim
    texts = unit(rng, 3, width)
    pixels = torch.randint(0, 256, (4, 224, 224, 3), dtype=torch.uint8)
    betas = CalipOptions(beta2=0.7, beta3=0.05)
    request = MethodRequest("x", 1, None, MethodOptions(calip=betas))
    names = ["a", "b", "c"]
    bench = ScoringContext(
        request, names, [[n] for n in names], 100.0, lambda _: texts, lambda: encoder
    )
    score = METHODS["calip"].prepare(bench)
    got = score(QueryShard(pixels=lambda: iter([pixels[:3], pixels[3:]])))
    whole, places = spatial_features(encoder, encoder.normalise(pixels))
    logits = literal(whole.numpy(), places.numpy(), texts, (0.7, 0.05))
    np.testing.assert_allclose(got, softmax(logits, axis=1), atol=1e-5)


def test_the_published_pairs_are_oracles(world):
    method, card = METHODS["calip-oracle"], ModelCard("x", ModelSpec.from_name("RN50/openai"), {})
    request = MethodRequest("eurosat", 128, None)
    settings = method.settings(request, None)
    assert {(s.value, s.source) for s in settings.values()} == {(6.08, "oracle"), (0.06, "oracle")}
    method.check(request, card, [])
    with pytest.raises(ConfigError, match="not for `tiny`"):
        method.check(MethodRequest("tiny", 128, None), card, [])
    assert {s.source for s in METHODS["calip"].settings(request, None).values()} == {"fixed"}
