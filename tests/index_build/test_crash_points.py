"""gc and roll back, killed before each change of a file; then the same command again."""

import os
import shutil
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash import killed_before, tree

from flows.reindex import xmore_reindex
from flows.upkeep import check, roll_back
from index_build.base import history, takedown
from index_build.upkeep.gc import collect
from xmore.memory.snapshot import open_snapshot, resolve_current

EVERY = 1 if int(os.environ.get("XMORE_KILLS", 1)) > 1 else 9  # operation; each in `make test-slow`


def points(run, memory: Path, before: Path):
    """Yield after each kill of `run`, with the memory as the kill left it."""
    for n in count(1, EVERY):
        shutil.rmtree(memory, ignore_errors=True)
        shutil.copytree(before, memory)
        if not killed_before(n, run, memory):
            return
        yield n


def rows(memory: Path) -> dict[str, bytes]:
    """The current snapshot's features by row_key."""
    snapshot = open_snapshot(memory, resolve_current(memory))
    assert check(snapshot) == []
    keys = [k for s in snapshot.shards for k in pq.read_table(s.metadata)["row_key"].to_pylist()]
    features = np.concatenate([np.load(shard.embeddings) for shard in snapshot.shards])
    return {key: row.tobytes() for key, row in zip(keys, features, strict=True)}


@pytest.fixture(scope="module")
def year(world, web_server, tmp_path_factory):
    """A memory of a list of 30; then 6 of them leave and one is taken down. And the first list."""
    folder = tmp_path_factory.mktemp("points")
    urls = web_server.url_list(folder / "urls.parquet", rows=30)
    config = world.url_config(urls, folder / "memory", shard_rows=10)
    config = config.model_copy(update={"model": config.model.model_copy(update={"pooled": False})})
    xmore_reindex.fn(config)
    first, table = rows(config.memory), pq.read_table(urls)
    taken = folder / "taken.txt"
    taken.write_text(table["URL"][29].as_py() + "\n")
    pq.write_table(table.take([*range(5), *range(11, 30)]), urls)
    xmore_reindex.fn(config.model_copy(update={"take_down": taken}))
    shutil.copytree(config.memory, folder / "before")
    return config, folder, table, first


def test_gc(year):
    config, folder, table, first = year
    memory, before = config.memory, folder / "before"
    collect(memory, keep=1, dry_run=False)
    expected = tree(memory)
    assert len(expected) < len(tree(before))
    killed = 0
    for _ in points(lambda: collect(memory, keep=1, dry_run=False), memory, before):
        rows(memory)  # whole at once
        collect(memory, keep=1, dry_run=False)
        assert tree(memory) == expected
        killed += 1
    assert killed >= 50 // EVERY
    pq.write_table(pa.concat_tables([table]), folder / "urls.parquet")  # all come back
    xmore_reindex.fn(config.model_copy(update={"take_down": folder / "taken.txt"}))
    back = rows(memory)
    assert len(back) == 29 and all(first[key] == value for key, value in back.items())


def test_roll_back(year):
    config, folder, *_ = year
    memory, before = config.memory, folder / "nothing-taken-down"
    shutil.copytree(folder / "before", before)
    (before / takedown.FILE).unlink()  # else no rollback may return to the row
    shutil.rmtree(memory)
    shutil.copytree(before, memory)
    moved = roll_back(memory, None)
    for n in count(1):
        shutil.rmtree(memory)
        shutil.copytree(before, memory)
        if not killed_before(n, lambda: roll_back(memory, None), memory):
            break
        rows(memory)
        assert roll_back(memory, None) == moved
        events = [event for event in history.read(memory) if event["event"] == "rolled back"]
        assert len(events) == 1 and resolve_current(memory) == moved[1]
        assert not list(memory.glob(".*.tmp")) and not (memory / "changes.json").exists()
    assert n > 5
