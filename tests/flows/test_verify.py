"""A flipped bit, anywhere: `xmore verify --all` and `xmore memory verify --all` see it."""

import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.reindex import xmore_reindex
from xmore.results.runs import all_runs
from xmore.results.views import write_views

FLIPS = 4  # in each kind of file

RESULTS = {
    "parts": "store/[!c]*/*/*/part-*.parquet",
    "the text store": "store/caption_embeddings/*/*/part-*.parquet",
    "manifests": "store/*/*/*/manifest.json",
    "runs": "runs/*/run.json",
    "views": "runs/*/views.sql",
}
MEMORY = {
    "embeddings": "snapshots/*/img_emb/*.npy",
    "metadata": "snapshots/*/metadata/*.parquet",
    "indices": "snapshots/*/image.index",
    "manifests": "snapshots/*/manifest.json",
    "batches": "batches/*/features-*/*_emb/*.npy",
    "records": "batches/*/features-*/done/*.json",
}


def flipped(folder: Path, pattern: str, n: int) -> tuple[Path, bytes]:
    """Flip a bit of a file; returns the file and its content before."""
    chosen = random.Random(f"{pattern} {n}")
    path = chosen.choice(sorted(folder.glob(pattern)))
    whole = path.read_bytes()
    data = bytearray(whole)
    data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    path.unlink()  # a hard link may be another file's
    path.write_bytes(data)
    return path, whole


@pytest.fixture(scope="module")
def results(done, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verified") / "results"
    shutil.copytree(done.config.results, folder)
    for run in all_runs(folder):
        write_views(run)  # their place is another one
    return folder


@pytest.fixture(scope="module")
def memory(world, tmp_path_factory) -> Path:
    """A memory with two snapshots."""
    folder = tmp_path_factory.mktemp("verified")
    table = pq.read_table(world.root / "captions.parquet")
    config = world.memory_config(folder / "captions.parquet", memory=folder / "memory")
    for rows in (12, 15):
        pq.write_table(table.slice(0, rows), folder / "captions.parquet")
        xmore_reindex.fn(config)
    return config.memory


def test_what_is_whole_is_intact(results, memory, xmore):
    answer = xmore("verify", "--all", "--results", results)
    assert answer.returncode == 0 and ": intact (" in answer.stdout and "read)" in answer.stdout
    answer = xmore("memory", "verify", memory, "--all")
    assert answer.returncode == 0 and ": intact (" in answer.stdout
    assert xmore("verify").returncode == xmore("verify", "latest", "--all").returncode == 2


@pytest.mark.parametrize("n", range(FLIPS))
@pytest.mark.parametrize("kind", RESULTS)
def test_results(results, xmore, kind, n):
    path, whole = flipped(results, RESULTS[kind], n)
    answer = xmore("verify", "--all", "--results", results)
    path.write_bytes(whole)
    assert answer.returncode == 1 and path.name in answer.stdout, answer


@pytest.mark.parametrize("n", range(FLIPS))
@pytest.mark.parametrize("kind", MEMORY)
def test_memories(memory, xmore, kind, n):
    path, whole = flipped(memory, MEMORY[kind], n)
    answer = xmore("memory", "verify", memory, "--all")
    path.write_bytes(whole)
    assert answer.returncode == 1 and path.name in answer.stdout, answer
