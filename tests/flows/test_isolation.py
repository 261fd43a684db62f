"""A memory that is made anew while a benchmark reads it."""

import shutil

import pyarrow.parquet as pq
from sharing import same_rows

from flows import stages
from flows.benchmark import xmore_benchmark
from xmore.files.locks import is_locked
from xmore.memory.snapshot import resolve_current
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows


def test_a_benchmark_keeps_its_snapshot_while_another_is_published(
    world, done, tmp_path, starter, monkeypatch
):
    memory = shutil.copytree(world.root / "memory", tmp_path / "memory")
    old = resolve_current(memory)
    pq.write_table(pq.read_table(world.root / "captions.parquet")[:50], tmp_path / "few.parquet")
    changed = world.memory_config(memory=memory, captions=tmp_path / "few.parquet")
    captions = stages.captions

    def publish_first(*arguments):
        # Between two stages of the benchmark, another process publishes.
        assert is_locked(memory / ".locks" / f"{old}.lock")
        assert starter.run("reindex", changed) == "0"
        assert resolve_current(memory) != old
        return captions(*arguments)

    monkeypatch.setattr(stages, "captions", publish_first)
    config = world.config(tmp_path / "results", memory=memory)
    run = load_run(config.results, xmore_benchmark.fn(config))
    undisturbed = load_run(done.config.results, done.name)
    assert run.snapshot["name"] == undisturbed.snapshot["name"] == old
    assert [ref.digest for ref in run.artifacts] == [ref.digest for ref in undisturbed.artifacts]
    for one, other in zip(run.artifacts, undisturbed.artifacts, strict=True):
        assert same_rows(read_rows(one), read_rows(other)), one.stage
    assert not is_locked(memory / ".locks" / f"{old}.lock")

    monkeypatch.undo()
    later = load_run(config.results, xmore_benchmark.fn(config))
    assert later.snapshot["name"] == resolve_current(memory) != old
