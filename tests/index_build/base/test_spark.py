"""The same downloads and the same neighbours with Spark's workers as with processes here."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.reindex import xmore_reindex
from index_build.index.build import build_index, unpublished
from xmore.config.memory import IndexConfig
from xmore.memory.snapshot import open_snapshot, resolve_current

pytest.importorskip("pyspark", reason="xmore[spark] is not installed")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java, which is not here", allow_module_level=True)

# Only our own request refuses these: img2dataset's follows `file:` and has no bound of bytes.
REFUSED = {"big/unannounced": "too many bytes", "file:///etc/hostname": "not a usable URL"}


def rows_of(snapshot) -> list[dict]:
    return [row for s in snapshot.shards for row in pq.read_table(s.metadata).to_pylist()]


def test_spark_downloads_the_same_rows_within_the_same_bounds(world, web, tmp_path):
    extra = [(path if ":" in path else web.url(path), f"bad: {path}") for path in REFUSED]
    urls = web.url_list(tmp_path / "urls.parquet", extra, rows=24)
    made = {}
    for distributor in ("multiprocessing", "pyspark"):
        download = {
            "distributor": distributor,
            "timeout": 5,
            "threads": 8,
            "processes": 1,
            "retries": 0,
            "max_bytes": 1_000_000,
        }
        config = world.url_config(urls, tmp_path / distributor, download=download, shard_rows=13)
        made[distributor] = xmore_reindex.fn(config).snapshot
    here, spark = made["multiprocessing"], made["pyspark"]
    assert spark.manifest["failures"] == dict.fromkeys(REFUSED.values(), 1)
    assert spark.manifest["failures"] == here.manifest["failures"]
    assert rows_of(spark) == rows_of(here) and len(rows_of(spark)) == 24
    assert spark.name == here.name


def test_an_index_that_spark_built_finds_the_true_neighbours(world, tmp_path):
    import faiss

    memory = world.root / "memory"
    snapshot = open_snapshot(memory, resolve_current(memory))
    folder = shutil.copytree(snapshot.path, tmp_path / "making")
    (folder / "image.index").unlink()
    config = IndexConfig(distributed="pyspark", key="IVF4,Flat", target_recall=1)
    facts = build_index(folder, config)
    assert facts["key"] == "IVF4,Flat"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["making", "making.index.json"]
    features = np.concatenate([np.load(s.embeddings) for s in unpublished(folder).shards])
    features = features.astype(np.float32)
    index = faiss.read_index(str(folder / "image.index"))
    faiss.ParameterSpace().set_index_parameter(index, "nprobe", 4)
    _, found = index.search(features, 1)
    similarities = features @ features.T
    best = similarities.max(1)
    assert index.ntotal == len(features)
    assert np.allclose(similarities[np.arange(len(features)), found[:, 0]], best, atol=1e-5)
