"""PACS' four domains on a memory of real captions: only where that data is (XMORE_REALSET)."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from flows.benchmark import xmore_benchmark
from flows.reindex import xmore_reindex
from xmore.results.runs import load_run
from xmore.results.views import open_views

REALSET = os.environ.get("XMORE_REALSET")
pytestmark = pytest.mark.skipif(
    not REALSET, reason="XMORE_REALSET does not name the folder of real photos and captions"
)
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
ROWS = 300  # of the memory's: enough to be retrieved from, soon embedded


def test_four_domains_run_on_real_captions(world, tmp_path):
    root = Path(str(REALSET))
    captions = pq.read_table(root / "memory" / "captions.parquet")
    step = captions.num_rows // ROWS
    pq.write_table(captions.take(list(range(0, step * ROWS, step))), tmp_path / "few.parquet")
    images = {"folder": root / "memory", "captions": tmp_path / "few.parquet"}
    xmore_reindex.fn(world.memory_config(memory=tmp_path / "memory", sources=[{"images": images}]))
    for domain in DOMAINS:
        card = {"name": domain, "root": str(root / "pacs" / domain)}
        card["expected"] = {"classes": 7, "images": 140}
        (tmp_path / f"{domain}.yaml").write_text(yaml.safe_dump(card))
    config = world.config(
        tmp_path / "results",
        datasets=[str(tmp_path / f"{domain}.yaml") for domain in DOMAINS],
        memory=tmp_path / "memory",
        adjustments=["minmax", "running-sum"],
        retrieval={"candidates": 128, "captions": [16]},
    )
    run = load_run(config.results, xmore_benchmark.fn(config))
    rows = open_views(run).execute("select dataset, method, n, top1 from leaderboard").fetchall()
    assert {(dataset, n) for dataset, _, n, _ in rows} == {(domain, 140) for domain in DOMAINS}
    top1 = {(dataset, method): value for dataset, method, _, value in rows}
    assert top1["photo", "clip"] > 0.5 > top1["sketch", "clip"]  # chance is 1 in 7
