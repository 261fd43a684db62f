"""Publishing: what is live when, what a snapshot is made of, and rows that come ready-made."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import reindex, upkeep
from flows.reindex import xmore_reindex
from index_build.base import history
from index_build.base.shards import MetadataStream
from index_build.plan import ReindexPlan
from index_build.snapshot import changes
from xmore.files.digests import digest_of
from xmore.files.errors import SnapshotError
from xmore.memory.adopt import open_memory
from xmore.memory.pairs import batches_of
from xmore.memory.rows import captions_of, keys_of
from xmore.memory.snapshot import MemoryShard, Snapshot, resolve_current

DIM = 16


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of clip-retrieval: two files of 30 rows; rows 31 and 40 are those of row 3."""
    for kind in ("img_emb", "metadata"):
        (tmp_path / "foreign" / kind).mkdir(parents=True)
    rows = np.random.default_rng(0).normal(size=(60, DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    for number in range(2):
        ids = range(30 * number, 30 * number + 30)
        np.save(tmp_path / "foreign" / "img_emb" / f"img_emb_{number}.npy", rows[ids])
        names = [str(3 if i in (31, 40) else i) for i in ids]
        table = pa.table({"caption": names, "url": names, "place": list(ids)})
        pq.write_table(table, tmp_path / "foreign" / "metadata" / f"metadata_{number}.parquet")
    return tmp_path / "foreign"


@pytest.fixture
def config(world, folder, tmp_path):
    return world.memory_config(
        memory=tmp_path / "memory",
        sources=[{"clip_retrieval": {"folder": folder}}],
        cache=tmp_path / "cache",
        shard_rows=10,
    )


def test_of_rows_that_come_twice_the_first_is_kept(config):
    result = xmore_reindex.fn(config)
    rows = [r for s in result.snapshot.shards for r in pq.read_table(s.metadata).to_pylist()]
    assert [row["place"] for row in rows] == [i for i in range(60) if i not in (31, 40)]
    assert result.snapshot.manifest["failures"] == {"same row twice": 2}
    assert [shard.rows for shard in result.snapshot.shards] == [10] * 5 + [8]


def test_a_file_of_metadata_is_read_once_for_all_its_shards(folder, monkeypatch):
    path = folder / "metadata" / "metadata_1.parquet"
    monkeypatch.setattr("index_build.base.shards.STREAMED", 7)
    opened, opening = [], pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda *a, **k: opened.append(a) or opening(*a, **k))
    stream, whole = MetadataStream(path), pq.read_table(path)
    for places in ([0], [0, 1, 6, 7], [8, 9], [], [9, 20, 29]):
        at = np.array(places, np.int64)
        assert stream.take(at) == whole.take(pa.array(at))
    assert len(opened) == 1
    assert stream.take(np.array([2])) == whole.take([2]) and len(opened) == 2


def test_a_task_gets_no_more_than_it_needs(config, monkeypatch):
    """Whatever number of rows or files the sources have."""
    sent = []
    monkeypatch.setattr(reindex, "spread", lambda task, calls, how: sent.extend(calls) or [0])
    with pytest.raises(SnapshotError, match="rows failed"):
        xmore_reindex.fn(config)
    [call] = sent
    assert len(pickle.dumps(call)) < 5000
    assert not any(isinstance(part, ReindexPlan) for part in call)


def killed(*args):
    raise KeyboardInterrupt


def test_what_is_published_is_live_before_it_is_described(config, monkeypatch):
    """A run that is killed between them is completed by the next one."""
    memory = config.memory
    with monkeypatch.context() as ending, pytest.raises(KeyboardInterrupt):
        ending.setattr(reindex, "changes", killed)
        xmore_reindex.fn(config)
    first = resolve_current(memory)
    assert history.read(memory) == []
    result = xmore_reindex.fn(config)
    assert result.skipped and result.snapshot.name == first == resolve_current(memory)
    [event] = history.read(memory)
    assert (event["snapshot"], event["added"], event["removed"]) == (first, 58, 0)

    fewer = config.model_copy(update={"take_down": memory.parent / "down.txt"})
    fewer.take_down.write_text(keys_of(result.snapshot, np.array([5]))[0].as_py() + "\n")
    with monkeypatch.context() as ending, pytest.raises(KeyboardInterrupt):
        ending.setattr(reindex, "changes", killed)
        xmore_reindex.fn(fewer)
    second = resolve_current(memory)
    assert second != first and history.published(memory) == {first}
    xmore_reindex.fn(fewer)
    added = [(e["snapshot"], e["added"], e["removed"]) for e in history.read(memory)]
    assert added == [(first, 58, 0), (second, 0, 1)]


def test_a_roll_back_from_what_was_never_described_stays(config, monkeypatch):
    memory = config.memory
    first = xmore_reindex.fn(config).snapshot.name
    other = config.model_copy(update={"shard_rows": 11})
    with monkeypatch.context() as ending, pytest.raises(KeyboardInterrupt):
        ending.setattr(reindex, "changes", killed)
        xmore_reindex.fn(other)
    second = resolve_current(memory)
    assert upkeep.roll_back(memory, None) == (second, first)
    for _ in range(2):
        assert xmore_reindex.fn(other).withdrawn and resolve_current(memory) == first


def test_keys_are_counted_once_however_often_they_come(tmp_path):
    def snapshot(name, *files):
        shards = []
        for number, keys in enumerate(files):
            path = tmp_path / "snapshots" / name / f"metadata_{number}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            columns = {"memory_key": [key[0] for key in keys], "caption": [*keys]}
            pq.write_table(pa.table(columns), path)
            shards.append(MemoryShard(path, path, 0, len(keys)))
        facts = {"rows": sum(map(len, files))}
        return Snapshot(tmp_path / "snapshots" / name, name, facts, tuple(shards))

    before, after = snapshot("a", ["x", "y", "x"], ["z", "y"]), snapshot("b", ["z", "v"], ["w"])
    assert changes(after, before) == (2, 2, 0) and changes(before, after) == (2, 2, 0)
    assert changes(before, before) == (0, 0, 0) and changes(after, None) == (3, 0, 0)
    assert changes(snapshot("c", ["z new", "v"], ["w new"]), after) == (0, 0, 2)
    assert not list((tmp_path / "making").iterdir())


def test_pairs_are_beside_a_snapshot_and_no_part_of_its_digest(config):
    snapshot = xmore_reindex.fn(config).snapshot
    files = {file["file"]: file["sha256"] for file in snapshot.manifest["files"]}
    rows = sorted([name, sha] for name, sha in files.items() if "/" in name)
    model = snapshot.manifest["model"]["identity"]
    assert snapshot.digest == digest_of([rows, model])
    assert files.keys() - dict(rows).keys() == {"image.index", "pairs.arrow"}
    [batch] = batches_of(snapshot.path / "pairs.arrow")
    assert batch["caption"].to_pylist() == [str(i) for i in range(60) if i not in (31, 40)]


def test_a_snapshot_of_an_older_version_has_no_pairs_and_is_read(config, tmp_path):
    snapshot = xmore_reindex.fn(config).snapshot
    ids = np.array([57, 3, 3, 0])
    expected = keys_of(snapshot, ids), captions_of(snapshot, ids)
    path = snapshot.path / "manifest.json"
    facts = json.loads(path.read_bytes())
    facts["files"] = [file for file in facts["files"] if file["file"] != "pairs.arrow"]
    facts.pop("checksum")
    path.write_text(json.dumps(facts))
    (snapshot.path / "pairs.arrow").unlink()
    assert xmore_reindex.fn(config).skipped
    with open_memory(config.memory, tmp_path / "results" / "cache") as old:
        assert keys_of(old, ids) == expected[0] and captions_of(old, ids) == expected[1]
        assert len(list((tmp_path / "results" / "cache").glob("pairs-*.arrow"))) == 1
