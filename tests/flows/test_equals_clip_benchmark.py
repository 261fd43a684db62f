"""`clip` against CLIP_benchmark's zero-shot classification: the same numbers to the last digit."""

import open_clip
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from flows.benchmark import xmore_benchmark
from xmore.models.encoder import _load
from xmore.models.spec import describe_model
from xmore.results.runs import load_run
from xmore.results.views import open_views

builder = pytest.importorskip("clip_benchmark.datasets.builder", reason="no clip-benchmark here")
from clip_benchmark.metrics import zeroshot_classification  # noqa: E402

TEMPLATES = ["a photo of a {}.", "a drawing of the {}.", "one {}, seen from afar"]


def test_top1_and_top5_are_clip_benchmarks(world, webdataset, tmp_path):
    torch.manual_seed(0)
    save_file(open_clip.create_model("RN50").state_dict(), tmp_path / "RN50.safetensors")
    (tmp_path / "card.yaml").write_text(
        yaml.safe_dump({"name": "wds", "root": str(webdataset), "source": {"kind": "webdataset"}})
    )
    (tmp_path / "three.txt").write_text("\n".join(TEMPLATES))
    models = world.config(tmp_path).model_dump(mode="json", exclude_none=True)["models"]
    config = world.config(
        tmp_path / "results",
        datasets=[str(tmp_path / "card.yaml")],
        models=models
        | {"RN50": {"architecture": "RN50", "checkpoint": tmp_path / "RN50.safetensors"}},
        roles={"inference": ["lite0", "RN50"], "coarse": "lite0-pooled", "fine": "lite0"},
        retrieval={"candidates": 2, "captions": [1]},
        methods=["clip"],
    )
    ours = {}
    for count, changes in ((1, {}), (3, {"prompts": tmp_path / "three.txt"})):
        run = xmore_benchmark.fn(config.model_copy(update=changes))
        rows = open_views(load_run(config.results, run)).execute(
            "select model, top1, top5 from leaderboard"
        )
        ours |= {(model, count): (top1, top5) for model, top1, top5 in rows.fetchall()}
    for name in ("lite0", "RN50"):
        model, preprocess, tokenizer = _load(
            describe_model(name, config.model(name), tmp_path / "cache"), "cpu"
        )
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
