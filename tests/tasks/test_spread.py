"""The same memory and the same run by two workers of a Dask or Ray cluster as by one process."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from threads import threads

from flows import benchmark
from flows.reindex import xmore_reindex
from xmore.config.execution import ExecutionConfig
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows

RUNNERS = ("dask", "ray")


def by(runner: str) -> ExecutionConfig:
    return ExecutionConfig(workers=1, part_rows=4, runner=runner, runners=2)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A Prefect home of these tests' own."""
    with temporary_settings({PREFECT_HOME: tmp_path_factory.mktemp("prefect")}):
        yield


@pytest.fixture(params=RUNNERS)
def runner(request, home):
    """A runner that is installed; Dask's has a Prefect server that it has started for itself."""
    pytest.importorskip(f"prefect_{request.param}", reason=f"xmore[{request.param}] is not there")
    if request.param == "dask":
        yield "dask"
        return
    with temporary_settings({PREFECT_API_URL: request.getfixturevalue("prefect_server")}):
        yield request.param


@pytest.fixture
def cluster(home, prefect_server, monkeypatch):
    """Two workers of Dask that stay; they report to a server that was there."""
    pytest.importorskip("prefect_dask", reason="xmore[dask] is not there")
    import dask
    from distributed import LocalCluster

    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        temporary_settings({PREFECT_API_URL: prefect_server}),
        dask.config.set({"distributed.worker.daemon": False}),
        LocalCluster(**how) as started,
    ):
        yield started


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
    # Each worker of a cluster has one thread, and the last bit of a feature may hang on that.
    with threads(1):
        made = xmore_reindex.fn(config)
    return config, made


@pytest.mark.slow
def test_a_cluster_makes_the_same_memory(few, runner, tmp_path):
    config, here = few
    spread = config.model_copy(update={"memory": tmp_path / "memory", "execution": by(runner)})
    before = dict(os.environ)
    made = xmore_reindex.fn(spread)
    assert dict(os.environ) == before  # what is started from here afterwards has its own threads
    assert made.embedded == here.embedded == 40
    assert content(made.snapshot) == content(here.snapshot)
    assert made.snapshot.name == here.snapshot.name
    assert len(here.snapshot.shards) == 4


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cluster_runs_a_whole_benchmark(world, done, cluster, tmp_path, killed):
    execution = by("dask").model_copy(update={"address": cluster.scheduler_address})
    config = world.config(tmp_path / "results", execution=execution.model_dump())
    before = pids_of(cluster)
    if killed:
        killer = threading.Thread(target=kill_a_worker, args=(cluster, config.results / "store"))
        killer.start()
    there = load_run(config.results, benchmark.xmore_benchmark.fn(config))
    if killed:
        killer.join()
        assert len(pids_of(cluster) & before) == 1, "none was killed"
    here = load_run(done.config.results, done.name)
    assert there.status == "completed"
    names = [(ref.stage, ref.model, ref.digest, ref.rows) for ref in here.artifacts]
    assert names == [(ref.stage, ref.model, ref.digest, ref.rows) for ref in there.artifacts]
    by_workers = {ref.stage for ref in there.artifacts if ref.skipped}
    assert {ref.stage for ref in there.artifacts} - by_workers == {"metrics", "comparisons"}
    for one, other in zip(here.artifacts, there.artifacts, strict=True):
        same(read_rows(one), read_rows(other))


def pids_of(cluster) -> set[int]:
    return {worker.pid for worker in cluster.workers.values()}


def kill_a_worker(cluster, store: Path) -> None:
    """Kill a worker of Dask's, by a signal, while it writes scores."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        for worker in cluster.workers.values():
            if any("/scores/" in place for place in opened(worker.pid, store)):
                os.kill(worker.pid, signal.SIGKILL)
                return
        time.sleep(0.002)


def opened(pid: int, folder: Path) -> Iterator[str]:
    """The files under a folder that a process has open."""
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            place = os.readlink(link)
            if place.startswith(f"{folder}/"):
                yield place.removeprefix(str(folder))


def same(one, other):
    """Equal tables, but for the last bits of numbers that another count of threads gives."""
    assert one.schema == other.schema
    for name in one.column_names:
        flat = [column.combine_chunks() for column in (one[name], other[name])]
        while pa.types.is_list(flat[0].type) or pa.types.is_fixed_size_list(flat[0].type):
            flat = [column.flatten() for column in flat]
        if pa.types.is_floating(flat[0].type):
            assert np.allclose(*flat, atol=1e-5, equal_nan=True), name
        else:
            assert flat[0].equals(flat[1]), name
