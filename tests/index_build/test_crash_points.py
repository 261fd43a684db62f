"""The commands that change a memory, crashed at their points; then the same command again."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash_points import check_points, in_turns

from flows.reindex import xmore_reindex
from xmore.config.memory import ReindexConfig
from xmore.memory.snapshot import Snapshot

ROWS = 40


@pytest.fixture(scope="module")
def listed(web_server, tmp_path_factory) -> pa.Table:
    """A list of images that are there, and one that is not."""
    path = tmp_path_factory.mktemp("listed") / "urls.parquet"
    gone = [(web_server.url("images/gone.jpg"), "gone")]
    return pq.read_table(web_server.url_list(path, gone, rows=ROWS - 1))


@pytest.fixture
def folder(tmp_path) -> Path:
    """What a command changes."""
    (tmp_path / "crashed").mkdir()
    return tmp_path / "crashed"


@pytest.fixture
def config_of(world, folder):
    """Makes the config of a memory in `folder` of a list of these rows."""

    def make(rows: pa.Table, **changes) -> ReindexConfig:
        pq.write_table(rows, folder.parent / "urls.parquet")
        values = {"shard_rows": 20, "cache": folder / "cache"} | changes
        return world.url_config(folder.parent / "urls.parquet", folder / "memory", **values)

    return make


def saved(config: ReindexConfig) -> Path:
    path = config.memory.parents[1] / "config.yaml"
    path.write_text(config.model_dump_json(exclude_unset=True))
    return path


@in_turns
def test_reindex_from_nothing(warm, config_of, listed, folder, turn):
    config = config_of(listed)
    check_points(warm, folder, "reindex", saved(config), sample=2, turn=turn)


@pytest.mark.slow
@in_turns
def test_reindex_of_a_changed_list(warm, config_of, listed, folder, turn):
    xmore_reindex.fn(config_of(listed.slice(0, 30)))
    config = config_of(listed.slice(3))
    check_points(warm, folder, "reindex", saved(config), sample=2, turn=turn)


@pytest.mark.slow
def test_reindex_with_a_take_down(warm, config_of, listed, folder):
    xmore_reindex.fn(config_of(listed))
    taken = folder.parent / "taken.txt"
    taken.write_text(listed["URL"][5].as_py() + "\n")
    config = config_of(listed, take_down=taken)
    check_points(warm, folder, "reindex", saved(config), sample=1)


@pytest.fixture
def local(world, folder):
    """Makes a memory in `folder` of some drawings: nothing is downloaded."""

    def make(*rows: slice) -> Path:
        captions, memory = folder.parent / "captions.parquet", folder / "memory"
        for some in rows:
            table = pq.read_table(world.root / "captions.parquet")
            pq.write_table(table[some], captions)
            xmore_reindex.fn(world.memory_config(captions, memory=memory, cache=folder / "cache"))
        return memory

    return make


@pytest.mark.slow
def test_take_down_and_reinstate(warm, local, folder):
    memory = local(slice(20))
    for command in ("add", "reinstate"):
        words = ("memory", "takedown", command, memory, "0" * 64)
        check_points(warm, folder, *words, sample=1)


def rows(snapshot: Snapshot) -> dict[str, bytes]:
    """A snapshot's features by row_key."""
    keys = [k for s in snapshot.shards for k in pq.read_table(s.metadata)["row_key"].to_pylist()]
    features = np.concatenate([np.load(shard.embeddings) for shard in snapshot.shards])
    return {key: row.tobytes() for key, row in zip(keys, features, strict=True)}


def test_gc(warm, world, config_of, listed, folder):
    model = {"model_name": "lite0", "model": {"folder": world.root / "models" / "lite0"}}
    first = rows(xmore_reindex.fn(config_of(listed, **model)).snapshot)
    taken = folder.parent / "taken.txt"
    taken.write_text(listed["URL"][30].as_py() + "\n")
    config = config_of(listed.slice(6), take_down=taken, **model)
    xmore_reindex.fn(config)
    check_points(warm, folder, "memory", "gc", config.memory, "--keep", "1", sample=3)
    back = rows(xmore_reindex.fn(config_of(listed, take_down=taken, **model)).snapshot)
    assert len(back) == len(first) - 1 and all(first[key] == back[key] for key in back)


def test_roll_back(warm, local, folder):
    memory = local(slice(20), slice(1, 20), slice(2, 20))  # who goes too far finds one there
    check_points(warm, folder, "memory", "rollback", memory, sample=3)


RARE = [pytest.param(each, marks=pytest.mark.slow) for each in ("reindex", "gc", "rollback")]


@pytest.mark.parametrize("command", ["verify", *RARE])
def test_too_many_open_files(warm, config_of, listed, folder, command):
    """They stop what runs in one line, and nothing is called damaged: no image is lost."""
    xmore_reindex.fn(config_of(listed.slice(0, 30)))
    config = config_of(listed.slice(3))
    words = ["reindex", saved(config)]
    if command != "reindex":
        xmore_reindex.fn(config)
        words = ["memory", command, config.memory]
        words += {"verify": ["--all", "--repair"], "gc": ["--keep", "1"], "rollback": []}[command]
    check_points(warm, folder, *words, sample=2, opens=True)
