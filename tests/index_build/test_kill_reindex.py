"""`kill -9` of a re-index at random moments: the next run ends with an undisturbed one's memory."""

import json
import random
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from index_build.snapshot import check_rows, verify_snapshot
from xmore.memory import open_snapshot, resolve_current

KILLS = 5  # ten of the whole demo take a quarter of an hour: by hand, with rows=2160


def content(memory: Path):
    """The rows of the current snapshot, and what can be compared of its index."""
    snapshot = open_snapshot(memory, resolve_current(memory))
    rows = [row for s in snapshot.shards for row in pq.read_table(s.metadata).to_pylist()]
    features = np.concatenate([np.load(shard.embeddings) for shard in snapshot.shards])
    facts = snapshot.manifest
    del facts["index"]["measured"]["ms_per_query"]
    return rows, features, facts["failures"], facts["index"]


def downloading(memory: Path) -> list[int]:
    """Processes that still download for this memory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(memory).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


def test_killed_reindexes_end_as_undisturbed_ones(world, web, tmp_path, starter):
    extra = [(web.url("images/gone.jpg"), "gone"), (web.url("bad/page.jpg"), "no image")]
    urls = web.url_list(tmp_path / "urls.parquet", extra, rows=150)
    undisturbed = world.url_config(urls, tmp_path / "undisturbed", shard_rows=30)
    begun = time.monotonic()
    assert starter.run("reindex", undisturbed) == "0"
    duration = time.monotonic() - begun
    rows, features, failures, index = content(undisturbed.memory)
    seed = random.randrange(1 << 32)
    moments, killed, resumed = random.Random(seed), 0, 0
    config = undisturbed
    for i in range(KILLS):
        config = undisturbed.model_copy(update={"memory": tmp_path / f"killed-{i}"})
        moment = moments.uniform(0, duration)
        why = f"seed {seed}, kill {i} after {moment:.2f} s"
        killed += starter.run("reindex", config, kill_after=moment) == "killed"
        if (config.memory / "CURRENT").exists():
            assert not check_rows(open_snapshot(config.memory, resolve_current(config.memory)))
        until = time.monotonic() + 10
        while downloading(config.memory):
            assert time.monotonic() < until, why
            time.sleep(0.1)
        whole = {
            p: p.stat().st_mtime_ns for p in config.memory.glob("batches/*/features-*/img_emb/*")
        }
        resumed += bool(whole)
        assert starter.run("reindex", config) == "0", why
        got = content(config.memory)
        assert got[0] == rows and (got[1] == features).all(), why
        assert got[2:] == (failures, index), why
        snapshot = open_snapshot(config.memory, resolve_current(config.memory))
        assert not verify_snapshot(snapshot), why
        assert all(p.stat().st_mtime_ns == time for p, time in whole.items()), why
        assert not list(config.memory.rglob("*.tmp")) and not list(
            config.memory.rglob("*.partial")
        ), why
    assert killed >= KILLS // 2, f"seed {seed}: killed {killed}"
    print(json.dumps({"killed": killed, "resumed": resumed, "seconds": duration}))
