"""Prompt tuning against a loop that is written as the paper tells it; views; their confidence."""

import numpy as np
import pytest
import torch
from at_random import Encoder, unit
from PIL import Image
from torchvision.transforms import CenterCrop

from xmore.files.errors import ModelError
from xmore.methods.base import MethodRequest, QueryShard, ScoringContext
from xmore.methods.confident_views import confident
from xmore.methods.options import MethodOptions, ViewsOptions
from xmore.methods.registry import METHODS
from xmore.models.augmented_views import ViewMaker
from xmore.models.prompt_tuning import PromptedClasses, check_tunable
from xmore.models.spec import ModelCard, ModelSpec

NAMES = ["tree frog", "dog", "barbecue grill that is long"]


SLOW = pytest.param("RN50", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[SLOW, "ViT-B-32", "lite0"])
def encoder(request, real_models, tmp_path_factory):
    if request.param != "lite0":
        return Encoder(request.param)
    from xmore.models.loaded import load_encoder
    from xmore.models.spec import describe_model

    spec = ModelSpec(folder=real_models / "lite0")
    return load_encoder(describe_model("lite0", spec, tmp_path_factory.mktemp("cache")), "cpu")


def whole_features(encoder, context):
    """Class features by the tower's own forward pass, its first embeddings exchanged on the way."""
    prompts = [f"a photo of a {name}." for name in NAMES]
    tokens = encoder.tokenizer(prompts, encoder.tokenizer.context_length)
    tower = getattr(encoder.model, "text", encoder.model)
    hugging = hasattr(tower, "config")
    layer = tower.transformer.get_input_embeddings() if hugging else tower.token_embedding
    if hugging:
        tokens = tokens[:, : int((tokens != 0).sum(1).max())]

    def exchange(_, __, out):
        return torch.cat([out[:, :1], context.expand(len(out), -1, -1), out[:, 5:]], 1)

    hook = layer.register_forward_hook(exchange)
    features = encoder.model.encode_text(tokens)
    hook.remove()
    return features / features.norm(dim=1, keepdim=True)


def start_of(encoder):
    tower = getattr(encoder.model, "text", encoder.model)
    tokens = encoder.tokenizer(["a photo of a"], 16)[0, 1:5]
    if hasattr(tower, "config"):
        return tower.transformer.get_input_embeddings()(tokens).detach()
    return tower.token_embedding(tokens).detach()


def literal(encoder, views, tau, keep):
    """Shu et al. 2022, equations 3 to 5, and AdamW's first step written out."""
    context = start_of(encoder).clone().requires_grad_()
    views = torch.from_numpy(views)
    logits = tau * views @ whole_features(encoder, context).T
    entropies = [-(p * p.log()).sum().item() for p in logits.softmax(1)]
    kept = sorted(range(len(views)), key=lambda i: entropies[i])[: int(keep * len(views))]
    mean = logits[kept].softmax(1).mean(0)
    loss = -(mean * mean.log()).sum()
    loss.backward()
    g, lr, decay = context.grad, 5e-3, 0.01
    stepped = context.detach() * (1 - lr * decay) - lr * g / (g.abs() + 1e-8)
    with torch.no_grad():
        return (tau * views[:1] @ whole_features(encoder, stepped).T).softmax(1)[0].numpy()


def bench_of(encoder, keep, texts=None):
    request = MethodRequest("x", 1, None, MethodOptions(views=ViewsOptions(keep=keep)))
    prompts = [[f"a photo of a {name}."] for name in NAMES]
    return ScoringContext(request, NAMES, prompts, 20.0, lambda _: texts, lambda: encoder)


def test_each_image_is_tuned_as_the_paper_tells(encoder):
    rng = np.random.default_rng(0)
    dim = start_features(encoder).shape[1]
    views = unit(rng, 3, 8, dim)
    got = METHODS["tpt"].prepare(bench_of(encoder, 0.5))(QueryShard(views=views))
    for i in range(3):
        expected = literal(encoder, views[i], 20.0, 0.5)
        # AdamW's first step is the rate times the gradient's sign: an element whose gradient is
        # within rounding of 0 may step either way. 2.1e-5 was seen under AVX2 and two threads.
        np.testing.assert_allclose(got[i], expected, atol=2e-4)
    again = METHODS["tpt"].prepare(bench_of(encoder, 0.5))(QueryShard(views=views[2:]))
    np.testing.assert_array_equal(again[0], got[2])  # no image learns from another


def start_features(encoder):
    classes = PromptedClasses(encoder, NAMES)
    return classes.features(classes.start[None])[0]


def test_untuned_classes_are_the_towers_own(encoder):
    with torch.no_grad():
        own = whole_features(encoder, start_of(encoder))
    torch.testing.assert_close(start_features(encoder), own, atol=1e-5, rtol=1e-4)


def test_the_gradient_does_not_depend_on_the_chunks(encoder):
    classes = PromptedClasses(encoder, NAMES)
    weights = torch.randn(2, *classes.features(classes.start[None])[0].shape)
    whole = classes.gradients(weights)
    classes.chunk = 2
    torch.testing.assert_close(classes.gradients(weights), whole)


def test_several_images_share_passes(encoder, monkeypatch):
    classes = PromptedClasses(encoder, NAMES)
    contexts = classes.start + 0.01 * torch.randn(5, *classes.start.shape)
    alone = classes.features(contexts)
    assert torch.equal(alone[3:4], classes.features(contexts[3:4]))
    passes, encode = [], classes._encode

    def watched(contexts, rows):
        passes.append(len(rows))
        return encode(contexts, rows)

    monkeypatch.setattr(classes, "_encode", watched)
    classes.together = 2  # as on a GPU
    torch.testing.assert_close(classes.features(contexts), alone, atol=1e-5, rtol=1e-4)
    assert passes == [6, 6, 3]
    passes.clear()
    weights = torch.randn_like(alone)
    several = classes.gradients(weights)
    assert passes == [3], "one forward pass serves the gradients of all images"
    for one, weight in zip(several, weights, strict=True):
        assert torch.equal(classes.gradients(weight[None])[0], one)


@pytest.mark.parametrize(("precision", "close"), [("bf16", 0.99), ("fp16", 0.999)])
def test_a_gradient_in_16_bits_points_where_float32s_does(precision, close):
    exact, near = (PromptedClasses(Encoder("RN50", p), NAMES) for p in ("fp32", precision))
    weights = torch.randn(2, *exact.features(exact.start[None])[0].shape)
    weights[1] *= 1e-7  # fp16 ends at 6e-8: unscaled, nothing would be left of this one
    for one, other in zip(exact.gradients(weights), near.gradients(weights), strict=True):
        assert other.dtype == torch.float32
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > close


def test_what_cannot_be_tuned_is_refused(encoder, monkeypatch):
    coca = ModelCard("mine", ModelSpec(architecture="coca_ViT-B-32", pretrained="x"), {})
    with pytest.raises(ModelError, match="`mine`: its text tower appends a class token"):
        check_tunable(coca)
    monkeypatch.setattr("xmore.models.prompt_tuning.CONTEXT", "a photo of")
    with pytest.raises(ModelError, match="does not split into 4 tokens"):
        PromptedClasses(encoder, NAMES)


def test_confident_views_are_a_mean_over_the_surest():
    rng = np.random.default_rng(2)
    texts, views = unit(rng, 3, 16), unit(rng, 2, 10, 16)
    got = METHODS["confident-views"].prepare(bench_of(None, 0.25, texts))(QueryShard(views=views))
    for i in range(2):
        rows = []
        for view in views[i].astype(np.float64):
            p = np.exp(20 * texts @ view)
            p /= p.sum()
            rows.append((-(p * np.log(p)).sum(), p))
        rows.sort(key=lambda row: row[0])
        np.testing.assert_allclose(got[i], (rows[0][1] + rows[1][1]) / 2, atol=1e-5)


def test_at_least_one_view_is_kept_and_ties_go_to_the_earlier():
    sure, unsure = [1.0, 0.0], [0.5, 0.5]
    assert confident(np.array([unsure, sure, sure]), 0.1).tolist() == [1]
    assert confident(np.array([sure, unsure, sure, unsure]), 0.5).tolist() == [0, 2]


@pytest.mark.parametrize("augmix", [False, True])
def test_views_are_the_clean_one_and_crops_that_repeat(augmix):
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (300, 280, 3), dtype=np.uint8))
    other = Image.fromarray(rng.integers(0, 256, (300, 280, 3), dtype=np.uint8))
    maker = ViewMaker(CenterCrop(224), (224, 224), 4, augmix, seed=0)
    before = torch.random.get_rng_state()
    views = maker(image)
    maker(other)
    assert views.shape == (4, 224, 224, 3) and views.dtype == torch.uint8
    np.testing.assert_array_equal(views[0], np.asarray(CenterCrop(224)(image)))
    assert len({view.numpy().tobytes() for view in views}) == 4
    assert torch.equal(maker(image), views)  # whatever came before
    assert torch.equal(torch.random.get_rng_state(), before)
    nearly = image.copy()
    nearly.putpixel((0, 0), (0, 0, 0))
    apart = (maker(nearly)[1:].float() - views[1:].float()).abs().mean()
    assert apart > 20, "another image has other crops"
    reseeded = ViewMaker(CenterCrop(224), (224, 224), 4, augmix, seed=1)(image)
    assert torch.equal(reseeded[0], views[0]) and not torch.equal(reseeded[1:], views[1:])
