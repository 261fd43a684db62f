"""The same memory and the same run by two workers of a Dask or Ray cluster as by one process."""

import pyarrow.parquet as pq
import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from flows.reindex import xmore_reindex
from xmore.config import ExecutionConfig

RUNNERS = ("dask", "ray")


def by(runner: str) -> ExecutionConfig:
    return ExecutionConfig(workers=1, part_rows=4, runner=runner, runners=2)


@pytest.fixture(scope="module", params=RUNNERS)
def runner(request, tmp_path_factory):
    """A runner that is installed, with a Prefect home of its own."""
    pytest.importorskip(f"prefect_{request.param}", reason=f"xmore[{request.param}] is not there")
    with temporary_settings({PREFECT_HOME: tmp_path_factory.mktemp("prefect")}):
        yield request.param


def content(snapshot) -> dict[str, bytes]:
    """All files of a snapshot but the manifest, which names its folder."""
    return {
        path.relative_to(snapshot.path).as_posix(): path.read_bytes()
        for path in sorted(snapshot.path.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.fixture(scope="module")
def few(world, tmp_path_factory):
    """40 rows in four shards, embedded by one process."""
    folder = tmp_path_factory.mktemp("few")
    table = pq.read_table(world.root / "captions.parquet")[:40]
    pq.write_table(table, folder / "captions.parquet")
    config = world.memory_config(
        folder / "captions.parquet", memory=folder / "memory", shard_rows=10
    )
    return config, xmore_reindex.fn(config)


def test_a_cluster_makes_the_same_memory(few, runner, tmp_path):
    config, here = few
    spread = config.model_copy(update={"memory": tmp_path / "memory", "execution": by(runner)})
    made = xmore_reindex.fn(spread)
    assert made.embedded == here.embedded == 40
    assert made.snapshot.name == here.snapshot.name
    assert content(made.snapshot) == content(here.snapshot)
    assert len(here.snapshot.shards) == 4
