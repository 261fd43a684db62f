"""A tiny world that all tests share: real models, a few real images, a real memory."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pyarrow.parquet as pq
import pytest

from xmore.config import BenchmarkConfig, ExecutionConfig, ReindexConfig

DEMO = Path(__file__).parents[1] / "data" / "demo"
CLASSES = ("bird", "flower", "fruit", "insect", "tool")


@dataclass(frozen=True)
class World:
    """Folders of the tiny world, and configs over them."""

    root: Path

    def memory_config(self, captions: Path | None = None, **changes) -> ReindexConfig:
        values = {
            "memory": self.root / "memory",
            "images": {
                "folder": DEMO / "memory" / "images",
                "captions": captions or self.root / "captions.parquet",
            },
            "model_name": "lite0-pooled",
            "model": {"folder": self.root / "models" / "lite0", "pooled": True},
            "shard_rows": 100,
            "cache": self.root / "cache",
            "execution": ExecutionConfig(workers=1),
        }
        return ReindexConfig.model_validate(values | changes)

    def config(self, results: Path, **changes) -> BenchmarkConfig:
        lite0, lite2 = self.root / "models" / "lite0", self.root / "models" / "lite2"
        values = {
            "name": "tiny",
            "datasets": [str(self.root / "tiny.yaml")],
            "memory": self.root / "memory",
            "models": {
                "lite0": {"folder": lite0},
                "lite2": {"folder": lite2},
                "lite0-pooled": {"folder": lite0, "pooled": True},
            },
            "roles": {"inference": ["lite0"], "coarse": "lite0-pooled", "fine": "lite0"},
            "retrieval": {"candidates": 24, "captions": [8]},
            "adjustments": ["minmax", "running-sum", "global", "none"],
            "results": results,
            "execution": {"workers": 1, "part_rows": 4},
        }
        return BenchmarkConfig.model_validate(values | changes)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """5 classes x 4 stamps, 240 captioned drawings, the two demo models."""
    from flows.reindex import xmore_reindex
    from xmore.conse import build_model

    root = tmp_path_factory.mktemp("world")
    for lite in ("lite0", "lite2"):
        build_model(lite, root / "models" / lite)
    for name in CLASSES:
        (root / "queries" / name).mkdir(parents=True)
        for path in sorted((DEMO / "queries" / name).glob("*.jpg"))[:4]:
            shutil.copy(path, root / "queries" / name)
    (root / "tiny.yaml").write_text("name: tiny\nroot: queries\n")
    table = pq.read_table(DEMO / "memory" / "captions.parquet")
    every_ninth = table.take(list(range(0, table.num_rows, 9)))
    pq.write_table(every_ninth, root / "captions.parquet")
    tiny = World(root)
    xmore_reindex.fn(tiny.memory_config())
    return tiny


@dataclass(frozen=True)
class Done:
    """A completed run of the tiny world."""

    config: BenchmarkConfig
    name: str


@pytest.fixture(scope="session")
def done(world, tmp_path_factory) -> Done:
    """One run that tests may read; none may change it."""
    from flows.benchmark import xmore_benchmark

    config = world.config(tmp_path_factory.mktemp("done"))
    return Done(config, xmore_benchmark.fn(config))
