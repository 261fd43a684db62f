"""A process for each device: the same artifacts and memory, parts shared out, errors told."""

import pytest
from sharing import same_rows

from flows.benchmark import xmore_benchmark
from flows.reindex import xmore_reindex
from tasks import devices
from tasks.pixels import Stream, spans_of
from xmore.config.execution import ExecutionConfig
from xmore.files.processes import shared_out
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows

ALL = ExecutionConfig(devices="all", part_rows=4)


@pytest.fixture
def two(monkeypatch):
    """Two devices; both are this machine's CPU. What was shared out among how many processes."""
    import tasks.reindex

    shared = []

    def watched(function, calls):
        shared.append((function.__name__, len(calls)))
        return shared_out(function, calls)

    monkeypatch.setattr(devices, "all_devices", lambda: ["cpu", "cpu"])
    for module in (devices, tasks.reindex):
        monkeypatch.setattr(module, "shared_out", watched)
    return shared


def test_a_stream_begins_where_it_is_asked_to():
    begun = []

    def begin(spans):
        begun.append(spans[0])
        yield from spans

    stream = Stream(spans_of([4, 4, 2]), begin)
    assert stream(4, 8) == (4, 8) and stream(8, 10) == (8, 10)
    assert stream(0, 4) == (0, 4) and stream(4, 8) == (4, 8)
    assert begun == [(4, 8), (0, 4)]


@pytest.mark.slow
def test_a_benchmark_on_two_devices_is_that_on_one(world, done, two, tmp_path):
    config = done.config.model_copy(update={"results": tmp_path, "execution": ALL})
    run = load_run(tmp_path, xmore_benchmark.fn(config))
    theirs = {ref.digest: ref for ref in load_run(done.config.results, done.name).artifacts}
    assert [ref.digest for ref in run.artifacts if ref.digest not in theirs] == []
    for ref in run.artifacts:
        assert same_rows(read_rows(ref), read_rows(theirs[ref.digest])), ref.stage
    assert two == [("_each_part", 2)] * len(run.models)


@pytest.mark.slow
def test_a_reindex_on_two_devices_is_that_on_one(world, two, tmp_path):
    found = []
    for how in (ALL, ExecutionConfig()):
        memory = tmp_path / how.devices
        config = world.memory_config(memory=memory, execution=how, shard_rows=60)
        done = xmore_reindex.fn(config)
        assert done.embedded == done.snapshot.rows
        snapshot = open_snapshot(memory, resolve_current(memory))
        found.append([file["sha256"] for file in snapshot.manifest["files"]])
    assert found[0] == found[1] and two == [("embed_here", 2)]
