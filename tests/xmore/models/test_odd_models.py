"""Other people's models: each is prepared as it was trained, or refused in one line that helps."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import yaml
from safetensors.torch import save_file

from xmore.files.digests import digest_file
from xmore.files.errors import ModelError
from xmore.models import zoo
from xmore.models.checkpoint import TELLTALES
from xmore.models.loaded import load_encoder
from xmore.models.spec import ModelSpec, describe_model, same_model
from xmore.models.tokenizer import HUB_FILES

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
SIGLIP = HALF | {"resize_mode": "squash"}
MOBILE = {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"}
MOBILE |= {"resize_mode": "shortest"}
CLIPA = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CLIPA |= {"interpolation": "bilinear", "resize_mode": "squash"}
CLIP = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
SQUASHED = CLIP | {"interpolation": "bicubic", "resize_mode": "squash"}
NATIVE = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 1,
        "width": 16,
        "head_width": 8,
        "patch_size": 16,
    },
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def describe(tmp_path: Path, **spec):
    return describe_model("mine", ModelSpec(**spec), tmp_path / "cache")


def weights(folder: Path, rows: int = 50) -> Path:
    """A file that could be any architecture's, of a ViT with `rows` positions."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"logit_scale": torch.tensor(2.0), "visual.positional_embedding": torch.ones(rows, 4)}
    save_file(tensors, folder / "w.safetensors")
    return folder / "w.safetensors"


@pytest.fixture(scope="module")
def native(tmp_path_factory) -> Path:
    """A folder with a small CLIP at random weights, 3 MB, known to open_clip as `tiny-native`."""
    folder = tmp_path_factory.mktemp("native")
    (folder / "tiny-native.json").write_text(json.dumps(NATIVE))
    open_clip.add_model_config(folder / "tiny-native.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-native")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": NATIVE, "preprocess_cfg": SIGLIP}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


# How a checkpoint's images are prepared.

PREPROCESS = {
    "CLIP's own": ("ViT-B-32", {}, {}),
    "SigLIP": ("ViT-B-16-SigLIP", {}, SIGLIP),
    "SigLIP 2": ("ViT-B-16-SigLIP2-256", {}, SIGLIP),
    "MobileCLIP": ("MobileCLIP-S1", {}, MOBILE),
    "CLIPA": ("ViT-L-14-CLIPA", {}, CLIPA),
    "DFN at 378": ("ViT-H-14-378", {}, SQUASHED),
    "an architecture without tags": ("ViT-S-32", {}, {}),
    "tags that differ, and the key": ("ViT-L-14", {"mean": [0.5] * 3, "std": [0.5] * 3},
                                      HALF | {"resize_mode": "shortest"}),
    "tags that differ, and CLIP's own": ("ViT-L-14", CLIP, {}),
    "one key over the tags": ("ViT-B-32", {"resize_mode": "squash"},
                              SQUASHED),
    "another size": ("ViT-B-32", {"size": 384}, {"size": 384}),
    "its own size": ("ViT-B-32", {"size": 224}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", PREPROCESS)
def test_a_checkpoint_is_prepared_as_its_tags_or_its_keys_say(tmp_path, case):
    architecture, given, expected = PREPROCESS[case]
    path = tmp_path / "w.safetensors"
    save_file({"logit_scale": torch.tensor(2.0)}, path)
    spec = {"architecture": architecture, "checkpoint": path}
    spec |= {"preprocess": given} if given else {}
    assert describe(tmp_path, **spec).identity["preprocess"] == expected


UNCLEAR = {
    "two means": ("ViT-L-14", {}, ["mean: [0.5, 0.5, 0.5]", "for laion2b_s32b_b82k", "openai"]),
    "half of the keys": ("ViT-L-14", {"mean": [0.5] * 3}, ["std", "laion2b_s32b_b82k"]),
    "two resizings": ("ViT-H-14", {}, ["resize_mode: squash for dfn5b", "metaclip_fullcc"]),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_tags_that_differ_are_named(tmp_path, case):
    architecture, given, says = UNCLEAR[case]
    path = tmp_path / "w.safetensors"
    save_file({"logit_scale": torch.tensor(2.0)}, path)
    with pytest.raises(ModelError) as refused:
        describe(tmp_path, architecture=architecture, checkpoint=path, preprocess=given)
    for part in (*says, str(path), "`preprocess`", "open_clip_config.json"):
        assert part in str(refused.value)


def test_a_tag_recognised_by_its_place_or_hash_settles_what_tags_leave_open(tmp_path, monkeypatch):
    place = tmp_path / "models--laion--CLIP-ViT-L-14-laion2B-s32B-b82K" / "snapshots" / "a"
    path = weights(place, 257)
    card = describe(tmp_path, architecture="ViT-L-14", checkpoint=path)
    assert card.identity["preprocess"] == HALF | {"resize_mode": "shortest"}
    other = weights(tmp_path / "other", 257)
    url = f"https://openaipublic.azureedge.net/clip/models/{digest_file(other)}/x.pt"
    facts = SIGLIP | {"url": url}
    monkeypatch.setitem(zoo.pretrained()._PRETRAINED["ViT-L-14"], "mine", facts)
    card = describe(tmp_path, architecture="ViT-L-14", checkpoint=other)
    assert card.identity["preprocess"] == SIGLIP


def test_a_checkpoint_beside_its_config_is_the_folder(native, world, tmp_path):
    """On the demo such a swap of mean, std and resizing cost 7.8 points."""
    folder = load_encoder(describe(tmp_path, folder=native), "cpu")
    spec = {"architecture": "tiny-native", "checkpoint": native / "open_clip_model.safetensors"}
    beside = load_encoder(describe(tmp_path, **spec), "cpu")
    assert (beside.mean, beside.std) == (folder.mean, folder.std) == ([0.5] * 3, [0.5] * 3)
    assert str(beside.resize) == str(folder.resize)
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    ours, theirs = (e.encode_images(e.normalise(pixels)) for e in (beside, folder))
    np.testing.assert_array_equal(ours, theirs)
    alone = shutil.copy(native / "open_clip_model.safetensors", tmp_path / "alone.safetensors")
    given = spec | {"checkpoint": alone, "preprocess": SIGLIP}
    assert describe(tmp_path, **given).digest == describe(tmp_path, **spec).digest
    assert describe(tmp_path, **(spec | {"checkpoint": alone})).identity["preprocess"] == {}


def test_positions_of_another_size_are_not_interpolated_without_a_word(native, tmp_path):
    path = weights(tmp_path, 145)  # 12 x 12 patches of 32 pixels
    spec = {"architecture": "ViT-B-32", "checkpoint": path}
    with pytest.raises(ModelError, match=r"for images of 384 pixels.*reads 224.*size: 384"):
        describe(tmp_path, **spec)
    assert describe(tmp_path, **spec, preprocess={"size": 224}).identity["preprocess"] == {}
    larger = NATIVE | {"vision_cfg": NATIVE["vision_cfg"] | {"image_size": 48}}
    place = tmp_path / "larger"
    place.mkdir()
    (place / "tiny-large.json").write_text(json.dumps(larger))
    open_clip.add_model_config(place / "tiny-large.json")
    save_file(open_clip.create_model("tiny-large").state_dict(), place / "w.safetensors")
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": larger}))
    spec = {"architecture": "tiny-native", "checkpoint": place / "w.safetensors"}
    card = describe(tmp_path, **spec)  # the size is that of the config beside it
    assert card.identity["preprocess"] == {"size": 48}
    assert load_encoder(card, "cpu").image_size == (48, 48)


# Files that are no weights, or not these.


def torchscript(folder: Path) -> dict:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), folder / "RN50.pt")
    return {"architecture": "RN50", "checkpoint": folder / "RN50.pt"}


def torchscript_in_a_folder(folder: Path) -> dict:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), folder / "open_clip_model.pt")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": NATIVE}))
    return {"folder": folder}


def checkpoint(data: bytes | dict, name: str = "w.pt", architecture: str = "tiny-native"):
    def make(folder: Path) -> dict:
        path = folder / name
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            (save_file if path.suffix == ".safetensors" else torch.save)(data, path)
        return {"architecture": architecture, "checkpoint": path}

    return make


def cut_safetensors(folder: Path) -> dict:
    spec = checkpoint({"visual.proj": torch.ones(99)}, "w.safetensors")(folder)
    spec["checkpoint"].write_bytes(spec["checkpoint"].read_bytes()[:-9])
    return spec


def config(text: str | dict, *more: str):
    def make(folder: Path) -> dict:
        text_ = text if isinstance(text, str) else json.dumps(text)
        (folder / "open_clip_config.json").write_text(text_)
        save_file({"visual.x": torch.ones(1)}, folder / "open_clip_model.safetensors")
        for name in more:
            (folder / name).mkdir()
        return {"folder": folder}

    return make


def model(**changes) -> dict:
    return {"model_cfg": NATIVE | changes}


def transformers(kind: str):
    def make(folder: Path) -> dict:
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
        save_file({"visual.x": torch.ones(1)}, folder / "model.safetensors")
        return {"folder": folder}

    return make


def sharded(folder: Path) -> dict:
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": NATIVE}))
    (folder / "open_clip_model-00001-of-00002.safetensors").write_bytes(b"x")
    return {"folder": folder}


def pointer_in_a_folder(folder: Path) -> dict:
    spec = config({"model_cfg": NATIVE})(folder)
    (folder / "open_clip_model.safetensors").write_bytes(POINTER)
    return spec


def few_words(folder: Path) -> dict:
    """A text tower of 100 words, under open_clip's tokenizer of 49,408."""
    made = NATIVE | {"text_cfg": NATIVE["text_cfg"] | {"vocab_size": 100}}
    (folder / "tiny-few-words.json").write_text(json.dumps(made))
    open_clip.add_model_config(folder / "tiny-few-words.json")
    state = open_clip.create_model("tiny-few-words").state_dict()
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": made}))
    return {"folder": folder}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
OPENAI_KEYS = {key: torch.ones(1) for key in TELLTALES}
THEIR_KEY = {"vision_model.embeddings.patch_embedding.weight": torch.ones(1)}
PREPROCESS_CFG = {"model_cfg": NATIVE, "preprocess_cfg": {"mean": "white"}}
REFUSED = {
    "a pointer of LFS": (checkpoint(POINTER, "w.safetensors"), ["Git LFS", "git lfs pull"]),
    "a pointer of LFS in a folder": (pointer_in_a_folder, ["Git LFS", "git lfs pull"]),
    "positions that are a number": (
        checkpoint({"visual.positional_embedding": 3}, architecture="ViT-B-32"),
        ["w.pt could not be loaded"],
    ),
    "positions without rows": (
        checkpoint({"visual.positional_embedding": torch.tensor(3.0)}, architecture="ViT-B-32"),
        ["w.pt could not be loaded"],
    ),
    "two scales": (
        checkpoint(OPENAI_KEYS | {"logit_scale": torch.ones(2)}),
        ["w.pt could not be loaded"],
    ),
    "a scale of text": (
        checkpoint(OPENAI_KEYS | {"logit_scale": "high"}),
        ["w.pt could not be loaded"],
    ),
    "keys that are numbers": (checkpoint({1: torch.ones(1)}), ["w.pt could not be loaded"]),
    "an optimizer alone": (
        checkpoint({"epoch": 3, "optimizer": {"lr": 0.1}, "state_dict": None}),
        ["w.pt could not be loaded"],
    ),
    "another trainer's keys": (
        checkpoint({"epoch": 3, "model_state_dict": {"visual.proj": torch.ones(1)}}),
        ["w.pt could not be loaded"],
    ),
    "a tokenizer of nothing": (
        config(model(text_cfg=NATIVE["text_cfg"] | {"hf_tokenizer_name": "tok"}), "tok"),
        ["could not be loaded"],
    ),
    "OpenAI's TorchScript": (torchscript, ["TorchScript", "`RN50/openai`", "RN50-quickgelu"]),
    "TorchScript in a folder": (torchscript_in_a_folder, ["TorchScript", "safetensors"]),
    "an empty file": (checkpoint(b""), ["w.pt could not be loaded", "EOFError"]),
    "no checkpoint at all": (checkpoint(b"<html>not found</html>"), ["w.pt could not be loaded"]),
    "an empty state dict": (checkpoint({}), ["w.pt could not be loaded", "StopIteration"]),
    "a list": (checkpoint({"state_dict": [1]}), ["w.pt could not be loaded"]),
    "a truncated safetensors": (cut_safetensors, ["w.safetensors could not be loaded", "header"]),
    "another architecture": (
        checkpoint({"visual.x": torch.ones(1)}),
        ["could not be loaded as tiny-native", "Missing key(s) in state_dict"],
    ),
    "transformers' keys": (checkpoint(THEIR_KEY), ["transformers' layout", "hf-hub:ORG/NAME"]),
    "one shard": (checkpoint(b"x", "model-00001-of-00002.safetensors"), ["one part of several"]),
    "an index of shards": (checkpoint(b"{}", "w.safetensors.index.json"), ["one part of several"]),
    "a folder of shards": (sharded, ["in parts", "-00001-of-00002.safetensors"]),
    "transformers' CLIP": (transformers("clip"), ["transformers' layout of `clip`", "hf-hub:"]),
    "transformers' SigLIP": (transformers("siglip"), ["layout of `siglip`", "hf-hub:"]),
    "a config that is a list": (config("[]"), ["open_clip_config.json", "`model_cfg`"]),
    "a config of many brackets": (config("[" * 99999), ["open_clip_config.json"]),
    "a config with NaN": (config('{"model_cfg": {"embed_dim": NaN}}'), ["NaN is no number"]),
    "a config that is null": (config({"model_cfg": None}), ["`model_cfg`", "dictionary"]),
    "a text size": (config(model(embed_dim="16")), ["`embed_dim`", "integer", "'16'"]),
    "no text tower": (config({"model_cfg": {"embed_dim": 1, "vision_cfg": {}}}), ["`text_cfg`"]),
    "a vision tower of numbers": (config(model(vision_cfg=3)), ["`vision_cfg`", "dictionary"]),
    "an unknown key": (config(model(flavour=1)), ["could not be loaded", "'flavour'"]),
    "a mean of text": (config(PREPROCESS_CFG), ["`preprocess_cfg`", "mean", "white"]),
    "a deviation of 0": (
        config({"model_cfg": NATIVE, "preprocess_cfg": {"std": [0.0] * 3}}),
        ["`preprocess_cfg`", "std", "greater than 0"],
    ),
    "an unknown resizing": (
        config({"model_cfg": NATIVE, "preprocess_cfg": {"resize_mode": "crop"}}),
        ["resize_mode", "'shortest', 'longest' or 'squash'", "'crop'"],
    ),
    "a tokenizer elsewhere": (
        config(model(text_cfg={"hf_tokenizer_name": "../nowhere"})),
        ["hf_tokenizer_name: ../nowhere", "no such folder"],
    ),
    "a tokenizer of the working directory": (
        config(model(text_cfg={"hf_tokenizer_name": "tests"})),
        ["hf_tokenizer_name: tests", "no such folder", "Copy it there"],
    ),
    "a tokenizer that is a number": (
        config(model(text_cfg={"hf_tokenizer_name": 7})),
        ["hf_tokenizer_name", "must be text"],
    ),
    "markup": (
        checkpoint({"visual.[/red][bold]x": torch.ones(1)}, "[red]w[bold].safetensors"),
        ["[red]w[bold].safetensors could not be loaded"],
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # its archives are still met
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_is_refused_in_one_line(native, tmp_path, monkeypatch, case):
    make, says = REFUSED[case]
    folder = tmp_path / "model"
    folder.mkdir()
    spec = make(folder)
    monkeypatch.chdir(Path(__file__).parents[3])
    with pytest.raises(ModelError) as refused:
        load_encoder(describe(tmp_path, **spec), "cpu")
    line = str(refused.value)
    assert line.isprintable() and len(line) < 900 and str(folder) in line, line
    assert [part for part in says if part not in line] == [], line


READ = {
    "a trainer's checkpoint": lambda state: {"epoch": 3, "state_dict": state},
    "of several GPUs": lambda state: {f"module.{key}": value for key, value in state.items()},
    "both": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "with an optimizer": lambda state: {
        "epoch": 3,
        "name": "x",
        "state_dict": state,
        "optimizer": {"lr": 0.1},
        "state_dict_ema": {},
    },
    "in bfloat16": lambda state: {key: value.bfloat16() for key, value in state.items()},
    "in halves": lambda state: {key: value.half() for key, value in state.items()},
}


@pytest.mark.parametrize("case", READ)
def test_what_others_save_is_read(native, tmp_path, case):
    state = {k: v.detach() for k, v in open_clip.create_model("tiny-native").state_dict().items()}
    torch.save(READ[case](state), tmp_path / "w.bin")
    card = describe(tmp_path, architecture="tiny-native", checkpoint=tmp_path / "w.bin")
    found = load_encoder(card, "cpu").model.state_dict()["visual.proj"]
    bound = 1e-2 if "bfloat16" in case else 1e-3
    torch.testing.assert_close(found, state["visual.proj"], rtol=0, atol=bound)


def test_a_tokenizer_of_another_text_tower_is_named(native, tmp_path):
    encoder = load_encoder(describe(tmp_path, **few_words(tmp_path)), "cpu")
    with pytest.raises(ModelError, match="tokenizer gives 49407, but its text tower has 100 words"):
        encoder.encode_texts(["a bird"])


def test_a_folder_is_known_by_its_content_whatever_its_name(native, tmp_path):
    """open_clip takes another tokenizer for a name with `siglip` in it."""
    there = shutil.copytree(native, tmp_path / "my-siglip")
    one, other = (describe(tmp_path, folder=folder) for folder in (native, there))
    assert one.digest == other.digest and "tokenizer" not in one.identity
    texts = load_encoder(other, "cpu").encode_texts(["a bird"])
    np.testing.assert_array_equal(
        texts.unit, load_encoder(one, "cpu").encode_texts(["a bird"]).unit
    )


# A repository of the hub.


@pytest.fixture
def hub(native, monkeypatch):
    """The hub's client over a folder: the download alone is not the real one."""
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def download(repo_id, filename, **_):
        asked.append((repo_id, filename))
        if repo_id != "org/tiny" or not (native / filename).is_file():
            raise EntryNotFoundError(f"404: {filename}\nnot there")
        return str(native / filename)

    monkeypatch.setattr(zoo.pretrained(), "hf_hub_download", download)
    return asked


def test_a_repository_of_the_hub_is_its_folder(hub, native, tmp_path):
    card = describe_model("m", ModelSpec.from_name("hf-hub:org/tiny"), tmp_path)
    assert card.digest == describe(tmp_path, folder=native).digest
    assert load_encoder(card, "cpu").encode_texts(["a"]).unit.shape == (1, 16)
    assert {repository for repository, _ in hub} == {"org/tiny"}


@pytest.mark.parametrize("name", ["hf-hub:org/other", "hf-hub:openai/clip-vit-base-patch32"])
def test_a_repository_in_another_layout_is_refused(hub, tmp_path, name):
    with pytest.raises(ModelError, match=r"has no open_clip_config\.json .*set `folder`"):
        describe_model("m", ModelSpec.from_name(name), tmp_path)


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:org", "hf-hub:a/b/c", "hf-hub:../x"])
def test_a_name_that_is_no_repository_is_refused(name):
    with pytest.raises(ModelError, match="`hf-hub:ORG/NAME`"):
        ModelSpec.from_name(name)


# The tokenizer's files.


def test_a_changed_tokenizer_is_another_model_for_texts_alone(world, tmp_path):
    here = world.root / "models" / "lite0"
    there = shutil.copytree(here, tmp_path / "there")
    one = describe(tmp_path, folder=here)
    assert describe(tmp_path, folder=there).digest == one.digest
    text = (there / "text" / "tokenizer.json").read_text()
    (there / "text" / "tokenizer.json").write_text(
        text.replace('"lowercase":true', '"lowercase": true')
    )
    other = describe(tmp_path, folder=there)
    assert other.digest != one.digest and other.image_identity == one.image_identity
    assert not same_model(one.identity, other.identity)
    pooled = [describe(tmp_path, folder=folder, pooled=True) for folder in (here, there)]
    assert pooled[0].digest == pooled[1].digest and "tokenizer" not in pooled[0].identity
    (there / "text" / "model.safetensors").write_bytes(b"weights do not count: they are not read")
    assert describe(tmp_path, folder=there).digest == other.digest


def test_an_older_identity_of_a_model_is_the_same_model(world, tmp_path):
    card = describe(tmp_path, folder=world.root / "models" / "lite0")
    older = card.image_identity
    assert same_model(older, card.identity) and same_model(card.identity, older)
    assert card.as_in(older).identity == older
    assert card.as_in(older | {"pooled": True}) == card
    assert not same_model(older | {"weights_sha256": ""}, card.identity)


def test_a_tokenizer_of_the_hub_is_known_by_its_cached_files(tmp_path, monkeypatch):
    import huggingface_hub

    cache = tmp_path / "tokenizer_config.json"
    cache.write_text("{}")

    def cached(repository, name):
        assert repository == "bert-base-uncased" and name in HUB_FILES
        return str(cache) if name == cache.name else huggingface_hub._CACHED_NO_EXIST

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    path = tmp_path / "w.safetensors"
    save_file({"logit_scale": torch.tensor(2.0)}, path)
    spec = {"architecture": "ViT-L-14-CLIPA", "checkpoint": path}
    one = describe(tmp_path, **spec)
    cache.write_text('{"do_lower_case": false}')
    other = describe(tmp_path, **spec)
    assert one.identity["tokenizer"] != other.identity["tokenizer"]
    monkeypatch.undo()
    assert same_model(describe(tmp_path, **spec).identity, one.identity)


# Texts over the limit.


@pytest.mark.parametrize("strip", [False, True])
def test_a_text_over_the_limit_is_counted_whatever_ends_it(world, tmp_path, strip):
    """CLIPA's tokenizer blanks the end token, in whose place the cut was looked for."""
    folder = shutil.copytree(world.root / "models" / "lite0", tmp_path / "m")
    made = json.loads((folder / "open_clip_config.json").read_text())
    made["model_cfg"]["text_cfg"] |= {
        "context_length": 8,
        "tokenizer_kwargs": {"strip_sep_token": strip},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(made))
    encoder = load_encoder(describe(tmp_path, folder=folder), "cpu")
    for words, cut in ((5, False), (6, False), (7, True), (8, True), (99, True)):
        assert encoder.encode_texts(["bird " * words]).truncated.tolist() == [cut], words


def test_no_markup_of_a_model_reaches_the_terminal(world, tmp_path, xmore):
    path = tmp_path / "[bold]w[red].pt"
    torch.save({"visual.[/red]": torch.ones(1)}, path)
    models = {"x": {"architecture": "RN50", "checkpoint": str(path)}}
    data = world.config(tmp_path / "results").model_dump(mode="json", exclude_none=True)
    data["models"] |= models
    data["roles"]["inference"] = ["x"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    answer = xmore("benchmark", tmp_path / "run.yaml")
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert re.search(r"\[bold\]w\[red\]\.pt could not be loaded", answer.stderr)
