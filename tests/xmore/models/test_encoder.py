"""Models: what a config may name, and what identifies one."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xmore.files.errors import ModelError
from xmore.images.decode import decode_image
from xmore.models import encoder as encoders
from xmore.models.device import pick_device
from xmore.models.loaded import load_encoder
from xmore.models.loading import load
from xmore.models.spec import ModelSpec, describe_model


def describe(spec, tmp_path):
    return describe_model("m", spec, tmp_path / "cache")


def test_a_tag_needs_no_section():
    spec = ModelSpec.from_name("ViT-B-32/laion2b_s34b_b79k")
    assert (spec.architecture, spec.pretrained) == ("ViT-B-32", "laion2b_s34b_b79k")


def test_unknown_architectures_and_tags_say_what_there_is(tmp_path):
    with pytest.raises(ModelError, match="no architecture `RN5`"):
        describe(ModelSpec.from_name("RN5/openai"), tmp_path)
    with pytest.raises(ModelError, match=r"no pretrained tag `opnai` .* openai"):
        describe(ModelSpec.from_name("RN50/opnai"), tmp_path)


def test_identity_is_weights_and_preprocessing_not_place(world, tmp_path):
    here = world.root / "models" / "lite0"
    there = shutil.copytree(here, tmp_path / "elsewhere")
    one = describe(ModelSpec(folder=here), tmp_path)
    assert describe(ModelSpec(folder=there), tmp_path).digest == one.digest
    assert describe(ModelSpec(folder=here, pooled=True), tmp_path).digest != one.digest
    config = json.loads((there / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.4] * 3
    (there / "open_clip_config.json").write_text(json.dumps(config))
    assert describe(ModelSpec(folder=there), tmp_path).digest != one.digest


def test_a_long_text_is_cut_before_it_is_tokenized_and_counts(world, tmp_path, monkeypatch):
    """open_clip's own tokenizer takes minutes for one word of 16,000 letters."""
    encoder = load_encoder(
        describe(ModelSpec(folder=world.root / "models" / "lite0"), tmp_path), "cpu"
    )
    seen, tokenize = [], encoder.tokenizer
    most = encoders.CHARACTERS * tokenize.context_length

    class Watched:
        context_length = tokenize.context_length
        tokenizer = tokenize.tokenizer

        def __call__(self, texts, length):
            seen.extend(map(len, texts))
            return tokenize(texts, length)

    monkeypatch.setattr(encoder, "tokenizer", Watched())
    spaced = "a " + " " * 3 * most + "cat"
    found = encoder.encode_texts(["a cat", "x" * 100_000, "a cat " * most, spaced])
    assert max(seen) == most and found.truncated.tolist() == [False, True, True, False]
    np.testing.assert_allclose(found.unit[3], found.unit[0], atol=1e-5)


def test_pooled_has_no_texts(real_models, tmp_path):
    spec = ModelSpec(folder=real_models / "lite0", pooled=True)
    encoder = load_encoder(describe(spec, tmp_path), "cpu")
    assert encoder.encode_images(torch.zeros(1, 3, 224, 224)).shape == (1, 1280)
    with pytest.raises(ModelError, match="images only"):
        encoder.encode_texts(["a"])


def test_images_are_prepared_to_the_last_bit_as_open_clip_does(real_models, world, tmp_path):
    card = describe(ModelSpec(folder=real_models / "lite0"), tmp_path)
    encoder, (_, preprocess, _) = load_encoder(card, "cpu"), load(card, "cpu")
    paths = sorted((world.root / "queries").rglob("*.jpg"))[:5]
    images = [decode_image(path.read_bytes()) for path in paths]
    raw = torch.stack([torch.from_numpy(np.array(encoder.resize(image))) for image in images])
    expected = torch.stack([preprocess(image) for image in images])
    assert torch.equal(encoder.normalise(raw), expected) and expected.std() > 0.1


class Payload:
    def __reduce__(self):
        return (open, ("payload-ran", "w"))


def test_a_pickle_with_a_payload_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "evil.pt").open("wb") as stream:
        pickle.dump({"visual.proj": Payload()}, stream)
    spec = ModelSpec(architecture="RN50", checkpoint=tmp_path / "evil.pt")
    with pytest.raises(ModelError, match=r"evil\.pt could not be loaded"):
        load_encoder(describe(spec, tmp_path), "cpu")
    assert not (tmp_path / "payload-ran").exists()


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_file({"visual.x": torch.zeros(1)}, tmp_path / "other.safetensors")
    spec = ModelSpec(architecture="RN50", checkpoint=tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other\.safetensors could not be loaded as RN50"):
        load_encoder(describe(spec, tmp_path), "cpu")


def test_absent_folders_and_devices(tmp_path):
    with pytest.raises(ModelError, match=r"must contain open_clip_config\.json"):
        describe(ModelSpec(folder=tmp_path), tmp_path)
    with pytest.raises(ModelError, match="no file"):
        describe(ModelSpec(architecture="RN50", checkpoint=tmp_path / "no.pt"), tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="sees no GPU"):
            pick_device("cuda")


def test_a_loaded_model_draws_no_values_and_lacks_none(world, real_models, tmp_path):
    for folder in (world.root / "models" / "lite0", real_models / "lite2"):
        before = torch.get_rng_state()
        model, _, _ = load(describe(ModelSpec(folder=folder), tmp_path), "cpu")
        assert torch.equal(torch.get_rng_state(), before)
        for name, value in load_file(next(folder.glob("*.safetensors"))).items():
            assert torch.equal(model.state_dict()[name], value.to(torch.float32)), name
