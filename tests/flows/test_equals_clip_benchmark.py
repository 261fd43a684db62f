"""`clip` and retrieval against CLIP_benchmark's two tasks: the same numbers to the last digit.

Its side is built by its own loader, so that a mistake in how we load a model or resize an image is
seen. It knows no folders: for the demo's tower, open_clip's factory is called as its loader calls
it, with what that cannot be told: the towers' classes, mean and standard deviation.
"""

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from flows.benchmark import xmore_benchmark
from xmore.models.conse import register_towers
from xmore.results.runs import load_run
from xmore.results.views import open_views

builder = pytest.importorskip("clip_benchmark.datasets.builder", reason="no clip-benchmark here")
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval  # noqa: E402
from clip_benchmark.models import load_clip  # noqa: E402

TOWER = "ViT-S-32-alt"  # of open_clip's own architectures, among the smallest
TEMPLATES = ["a photo of a {}.", "a drawing of the {}.", "one {}, seen from afar"]


def demo_tower(folder, tmp_path):
    """Model, preprocessing and tokenizer of a folder of ours, by open_clip alone."""
    register_towers()
    told = json.loads((folder / "open_clip_config.json").read_text())
    text = told["model_cfg"]["text_cfg"]
    for key in ("hf_model_name", "hf_tokenizer_name"):
        text[key] = str(folder / text[key])
    (tmp_path / "peers.json").write_text(json.dumps(told["model_cfg"]))
    open_clip.add_model_config(tmp_path / "peers.json")
    (weights,) = folder.glob("open_clip_model.*")
    model, _, preprocess = open_clip.create_model_and_transforms(
        "peers",
        pretrained=str(weights),
        pretrained_hf=False,
        image_mean=told["preprocess_cfg"]["mean"],
        image_std=told["preprocess_cfg"]["std"],
    )
    return model.eval(), preprocess, open_clip.get_tokenizer("peers")


def test_top1_and_top5_are_clip_benchmarks(world, real_models, webdataset, tmp_path):
    torch.manual_seed(0)
    save_file(open_clip.create_model(TOWER).state_dict(), tmp_path / "tower.safetensors")
    (tmp_path / "card.yaml").write_text(
        yaml.safe_dump({"name": "wds", "root": str(webdataset), "source": {"kind": "webdataset"}})
    )
    (tmp_path / "three.txt").write_text("\n".join(TEMPLATES))
    models = world.config(tmp_path).model_dump(mode="json", exclude_none=True)["models"]
    config = world.config(
        tmp_path / "results",
        datasets=[str(tmp_path / "card.yaml")],
        models=models
        | {"lite0": {"folder": real_models / "lite0"}}
        | {TOWER: {"architecture": TOWER, "checkpoint": tmp_path / "tower.safetensors"}},
        memory=None,
        roles={"inference": ["lite0", TOWER]},
        retrieval={},
    )
    ours = {}
    for count, changes in ((1, {}), (3, {"prompts": tmp_path / "three.txt"})):
        run = xmore_benchmark.fn(config.model_copy(update=changes))
        rows = open_views(load_run(config.results, run)).execute(
            "select model, top1, top5 from leaderboard"
        )
        ours |= {(model, count): (top1, top5) for model, top1, top5 in rows.fetchall()}
    theirs = {
        "lite0": demo_tower(real_models / "lite0", tmp_path),
        TOWER: load_clip("open_clip", TOWER, str(tmp_path / "tower.safetensors"), None, "cpu"),
    }
    for name, (model, preprocess, tokenizer) in theirs.items():
        model.eval()
        dataset = builder.build_dataset(
            "wds/demo", root=str(webdataset), transform=preprocess, split="test", download=False
        )
        loader = DataLoader(dataset.batched(16), batch_size=None)
        for count in (1, 3):
            found = zeroshot_classification.evaluate(
                model,
                loader,
                tokenizer,
                dataset.classes,
                [template.replace("{}", "{c}") for template in TEMPLATES[:count]],
                "cpu",
                amp=False,
            )
            assert (found["acc1"], found["acc5"]) == ours[name, count], (name, count)
    assert len({top1 for top1, _ in ours.values()}) > 1


def test_recalls_are_clip_benchmarks(world, real_models, distinct, tmp_path):
    """Their side decodes, tokenises and encodes by itself."""
    captions = {row["path"]: row["caption"].split(", ")[:3] for row in distinct.to_pylist()[::60]}
    assert len(captions) > 25 and {len(texts) for texts in captions.values()} >= {2, 3}
    (tmp_path / "images").mkdir()
    for name in captions:
        shutil.copy(world.images / name, tmp_path / "images" / name)
    rows = [{"image": name, "caption": text} for name, texts in captions.items() for text in texts]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    card = {"name": "pairs", "task": "retrieval", "root": "images"}
    card["captions"] = {"file": "captions.jsonl"}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    config = world.config(
        tmp_path / "results",
        datasets=[str(tmp_path / "card.yaml")],
        memory=None,
        models={"lite0": {"folder": real_models / "lite0"}},
        roles={"inference": ["lite0"]},
        retrieval={},
    )
    run = load_run(config.results, xmore_benchmark.fn(config))
    found = open_views(run).execute("select direction, k, recall from recalls").fetchall()
    model, preprocess, tokenizer = demo_tower(real_models / "lite0", tmp_path)
    pictures = [preprocess(Image.open(world.images / name)) for name in sorted(captions)]
    texts = [captions[name] for name in sorted(captions)]
    batches = [
        (torch.stack(pictures[i : i + 8]), texts[i : i + 8]) for i in range(0, len(texts), 8)
    ]
    theirs = zeroshot_retrieval.evaluate(
        model, batches, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    names = {"image-to-text": "text", "text-to-image": "image"}
    assert {
        f"{names[direction]}_retrieval_recall@{k}": np.float32(recall)
        for direction, k, recall in found
    } == {name: np.float32(recall) for name, recall in theirs.items()}
    assert len(set(theirs.values())) > 3
