"""Whatever a model's folder or a cache of facts holds: a model, a fact, or one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from test_fuzz import ANY, changed, json_values, one_line

from xmore.files.digests import FactCache
from xmore.files.errors import ModelError
from xmore.models.spec import ModelSpec, describe_model, same_model

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 12, "hf_tokenizer_name": "text", "hf_model_name": "text"},
        "quick_gelu": False,
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "m" / "text").mkdir(parents=True)
    (tmp_path / "m" / "text" / "tokenizer.json").write_text("{}")
    save_file({}, tmp_path / "m" / "open_clip_model.safetensors")
    return tmp_path / "m"


@ANY
@given(st.data())
def test_a_folders_config_describes_a_model_or_is_refused(folder, data):
    config = data.draw(json_values) if data.draw(st.integers(0, 4)) == 0 else CONFIG
    if config is CONFIG:
        config = changed(CONFIG, data.draw)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    try:
        card = describe_model("m", ModelSpec(folder=folder), folder.parent / "cache")
    except ModelError as error:
        one_line(error)
        assert str(folder) in str(error)
        return
    assert len(card.digest) == 64 and same_model(card.identity, card.image_identity)
    assert card.identity["architecture"] == config["model_cfg"]


@ANY
@given(st.data())
def test_a_config_beside_a_checkpoint_says_something_or_nothing(folder, data):
    config = data.draw(json_values) if data.draw(st.booleans()) else changed(CONFIG, data.draw)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    path = folder / "open_clip_model.safetensors"
    spec = ModelSpec(architecture="ViT-B-32", checkpoint=path)
    try:
        card = describe_model("m", spec, folder.parent / "cache")
    except ModelError as error:
        one_line(error)
        return
    assert len(card.digest) == 64


@ANY
@given(json_values)
def test_a_cache_of_facts_is_read_or_made_again(tmp_path, value):
    (tmp_path / "a").write_text("one")
    cache = FactCache(tmp_path / "cache", tmp_path, "test")
    cache.path.parent.mkdir(exist_ok=True)
    cache.path.write_text(json.dumps({"a": value} if isinstance(value, list) else value))
    again = FactCache(tmp_path / "cache", tmp_path, "test")
    assert again.get("a") is None
    again.put("a", 1)
    assert again.get("a") == 1
