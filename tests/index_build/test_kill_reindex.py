"""`kill -9` of a re-index at random moments: the next run ends with an undisturbed one's memory."""

import json
import os
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.reindex import xmore_reindex
from index_build.base.features import part
from index_build.verify import check_rows, verify_snapshot
from xmore.config.memory import ReindexConfig
from xmore.files.locks import is_locked
from xmore.memory.snapshot import open_snapshot, resolve_current

KILLS = int(os.environ.get("XMORE_KILLS", 1))  # `make test-slow` makes ten


def content(memory: Path):
    """The rows of the current snapshot, and what can be compared of its index."""
    snapshot = open_snapshot(memory, resolve_current(memory))
    rows = [row for s in snapshot.shards for row in pq.read_table(s.metadata).to_pylist()]
    features = np.concatenate([np.load(shard.embeddings) for shard in snapshot.shards])
    facts = snapshot.manifest
    del facts["index"]["measured"]["ms_per_query"]
    return rows, features, facts["failures"], facts["index"]


def downloading(memory: Path) -> list[int | Path]:
    """What still downloads for this memory: processes, or the locks of forked ones."""
    found = [path for path in memory.glob("batches/*/images.lock") if is_locked(path)]
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(memory).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


def embedded(memory: Path) -> list[Path]:
    """Image embeddings of shards that are done: what was written before `done` is written again.

    A shard of which no image came has none.
    """
    records = memory.glob("batches/*/features-*/done/*.json")
    found = [part(record.parents[1], "img_emb", int(record.stem)) for record in records]
    return [path for path in found if path.exists()]


@dataclass(frozen=True)
class Case:
    """A memory as it is before the killed run, and the config of that run."""

    before: Path | None
    config: ReindexConfig


def fresh(world, web, folder: Path) -> Case:
    """A memory from nothing."""
    extra = [(web.url("images/gone.jpg"), "gone"), (web.url("bad/page.jpg"), "no image")]
    urls = web.url_list(folder / "urls.parquet", extra, rows=150)
    return Case(None, world.url_config(urls, folder / "undisturbed", shard_rows=30))


def incremental(world, web, folder: Path) -> Case:
    """90 rows there; of them 5 leave and 2 are taken down, 60 come."""
    urls = web.url_list(folder / "urls.parquet", rows=150)
    table = pq.read_table(urls)
    pq.write_table(table.slice(0, 90), urls)
    config = world.url_config(urls, folder / "before", shard_rows=30)
    xmore_reindex.fn(config)
    pq.write_table(table.slice(5), urls)
    down = folder / "down.txt"
    down.write_text("\n".join(table["URL"].to_pylist()[40:42]))
    shutil.copytree(config.memory, folder / "undisturbed")
    changes = {"memory": folder / "undisturbed", "take_down": down}
    return Case(config.memory, config.model_copy(update=changes))


@pytest.mark.parametrize("make", [fresh, pytest.param(incremental, marks=pytest.mark.slow)])
def test_killed_reindexes_end_as_undisturbed_ones(world, web, tmp_path, starter, make):
    starter.cold = KILLS > 1
    case = make(world, web, tmp_path)
    begun = time.monotonic()
    assert starter.run("reindex", case.config) == "0"
    duration = time.monotonic() - begun
    rows, features, failures, index = content(case.config.memory)
    seed = random.randrange(1 << 32)
    moments, killed, resumed, i = random.Random(seed), 0, 0, 0
    while killed < KILLS:
        i += 1
        assert i <= 4 * KILLS + 12, f"seed {seed}: killed {killed} of {i}"
        config = case.config.model_copy(update={"memory": tmp_path / f"killed-{i}"})
        if case.before:
            shutil.copytree(case.before, config.memory)
        moment = moments.uniform(0, duration)
        why = f"seed {seed}, kill {i} after {moment:.2f} s"
        if starter.run("reindex", config, kill_after=moment) == "killed":
            killed += 1
        else:  # it was quicker than the undisturbed one: kill sooner
            duration = moment
        if (config.memory / "CURRENT").exists():
            assert not check_rows(open_snapshot(config.memory, resolve_current(config.memory)))
        until = time.monotonic() + 10
        while downloading(config.memory):
            assert time.monotonic() < until, why
            time.sleep(0.1)
        whole = {path: path.stat().st_mtime_ns for path in embedded(config.memory)}
        resumed += bool(whole)
        assert starter.run("reindex", config) == "0", why
        got = content(config.memory)
        assert got[0] == rows and (got[1] == features).all(), why
        assert got[2:] == (failures, index), why
        snapshot = open_snapshot(config.memory, resolve_current(config.memory))
        assert not verify_snapshot(snapshot), why
        assert all(path.stat().st_mtime_ns == at for path, at in whole.items()), why
        left = [*config.memory.rglob("*.tmp"), *config.memory.rglob("*.partial")]
        assert not left, why
    print(json.dumps({"killed": killed, "resumed": resumed, "seconds": duration}))
