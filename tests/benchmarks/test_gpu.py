"""What a GPU is measured with, small and on the CPU: the same parts and code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xmore.models import decoding

ROOT = Path(__file__).parents[2]
ABSENT = (  # from a machine that has torch, and few wheels carried beside
    "prefect", "duckdb", "faiss", "autofaiss", "clip_retrieval", "clip_benchmark", "img2dataset",
    "embedding_reader", "sentence_transformers", "webdataset", "py3langid", "typer", "hypothesis",
    "fastapi", "matplotlib", "pycurl",
)  # fmt: skip
PER_MODEL = ("fp32, bare", "fp32, one call", "fp32, as the stage", "bf16, bare", "bf16, one call",
             "bf16, as the stage", "CLIP_benchmark, float32, 1 workers")  # fmt: skip
STAGES = ("queries", "query_embeddings RN50", "query_embeddings ViT-B-16", "candidates", "captions",
          "query_embeddings ViT-B-32", "query_embeddings ViT-L-14", "leaks", "scores RN50",
          "scores ViT-B-16", "predictions RN50", "metrics", "comparisons")  # fmt: skip


def test_every_figure_is_printed_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(decoding, "FEW", decoding.FEW)  # main lowers it
    monkeypatch.setattr(decoding.Decoder, "_workers", lambda self, count: 0)  # quick to start
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    from gpu_parts import main

    main(tmp_path / "gpu.json", True)
    check(tmp_path / "gpu.json", capsys.readouterr().out, PER_MODEL)


@pytest.mark.slow
def test_a_bare_machine_runs_it(tmp_path):
    absent = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n"
    (tmp_path / "sitecustomize.py").write_text(absent)
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", tmp_path / "gpu.json", "--small"]
    paths = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    answer = subprocess.run(command, capture_output=True, text=True, env=paths, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    check(tmp_path / "gpu.json", answer.stdout, PER_MODEL[:-1])
    assert "a loop as CLIP_benchmark's (which is not installed)" in answer.stdout


def check(path, printed, per_model):
    kept = json.loads(path.read_text())
    figures = {figure["name"]: figure["value"] for figure in kept["figures"]}
    assert kept["cores"] and kept["towers"]
    assert printed.count("\n") == 1 + len(kept["figures"]) and min(figures.values()) > 0
    names = [f"images, {model}, {what}" for model in ("RN50", "ViT-L-14") for what in per_model]
    names += [f"texts, {model}, {what}" for model in ("ViT-B-32", "ViT-L-14")
              for what in ("fp32, bare", "fp32, ours", "bf16, bare", "bf16, ours")]  # fmt: skip
    names += ["images, decoding alone", "texts, tokenizing alone", "search, adopting"]
    names += [f"whole, {stage}" for stage in STAGES]
    names += ["whole, from it: ImageNet, 50,000", "whole, from it: all 15 sets, 232,085"]
    names += [f"TPT, ViT-B-16, {how}" for how in ("fp32", "bf16")]
    assert [name for name in names if not any(x.startswith(name) for x in figures)] == []
    assert sum(name.startswith("search, 12 queries, ") for name in figures) == 3
