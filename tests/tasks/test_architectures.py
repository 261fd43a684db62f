"""open_clip's own architectures, at random weights, through the whole path."""

import json
import shutil

import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from flows.benchmark import xmore_benchmark
from flows.reindex import xmore_reindex
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("RN50", "ViT-B-32"):
        torch.manual_seed(0)
        save_file(open_clip.create_model(name).state_dict(), folder / f"{name}.safetensors")
    return folder


@pytest.mark.slow
def test_rn50_and_vit_run_from_local_checkpoints(world, checkpoints, tmp_path):
    for name in ("bird", "tool"):
        shutil.copytree(world.root / "queries" / name, tmp_path / "queries" / name)
    (tmp_path / "card.yaml").write_text("name: few\nroot: queries\n")
    pq.write_table(pq.read_table(world.root / "captions.parquet")[:24], tmp_path / "few.parquet")
    models = {
        name: {"architecture": name, "checkpoint": checkpoints / f"{name}.safetensors"}
        for name in ("RN50", "ViT-B-32")
    }
    memory = world.memory_config(
        memory=tmp_path / "memory", captions=tmp_path / "few.parquet", model=models["ViT-B-32"]
    )
    built = xmore_reindex.fn(memory)
    snapshot = tmp_path / "memory" / "snapshots" / built.snapshot.name
    assert built.snapshot.rows == 24 and len(list((snapshot / "text_emb").iterdir())) == 1
    assert json.loads((snapshot / "manifest.json").read_text())["dim"] == 512

    config = world.config(
        tmp_path / "results",
        datasets=[str(tmp_path / "card.yaml")],
        memory=tmp_path / "memory",
        models=models,
        roles={"inference": ["RN50"], "coarse": "ViT-B-32", "fine": "ViT-B-32"},
        retrieval={"candidates": 40, "captions": [4]},  # more than the memory has
    )
    run = load_run(config.results, xmore_benchmark.fn(config))
    dims = {
        ref.model: len(read_rows(ref)["embedding"][0])
        for ref in run.artifacts
        if ref.stage == "query_embeddings"
    }
    assert dims == {"RN50": 1024, "ViT-B-32": 512}
    found = next(ref for ref in run.artifacts if ref.stage == "candidates")
    assert {len(ids) for ids in read_rows(found)["memory_ids"]} == {24}
