import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xmore.files.digests import digest_text
from xmore.files.errors import SnapshotError
from xmore.memory import pairs
from xmore.memory.pairs import CAPTION, KEY, batches_of, holds_pairs, look_up, pairs_file
from xmore.memory.rows import captions_of, keys_of, pairs_of, rows_of_shard
from xmore.memory.snapshot import OURS, Columns, MemoryShard, Snapshot

ROWS = 230


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(pairs, "BATCH", 50)
    monkeypatch.setattr(pairs, "LOOKED_UP", 7)
    monkeypatch.setattr(pairs, "_made", {})


@pytest.fixture
def memory(tmp_path):
    """Shards of 90, 1, 0 and 139 rows, opened without a cache: read from Parquet."""
    texts = [random.Random(i).choice(["", "a", "é" * i, f"caption {i}"]) for i in range(ROWS)]
    keys = [digest_text(str(i)) for i in range(ROWS)]
    shards, start = [], 0
    for number, rows in enumerate((90, 1, 0, 139)):
        some = slice(start, start + rows)
        path = tmp_path / f"metadata_{number}.parquet"
        table = pa.table({"memory_key": keys[some], "caption": texts[some], "url": texts[some]})
        table = table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
        pq.write_table(table, path, row_group_size=32)
        shards.append(MemoryShard(path, path, start, rows))
        start += rows
    return Snapshot(tmp_path, "s", {"digest": "d" * 64, "rows": ROWS}, tuple(shards))


def cached(snapshot, tmp_path):
    return replace(snapshot, cache=tmp_path / "cache")


@pytest.mark.parametrize("columns", [OURS, Columns(None, "caption", "url")])
def test_any_rows_in_any_order_are_those_of_the_metadata(memory, tmp_path, columns):
    memory = replace(memory, columns=columns)
    with_file = cached(memory, tmp_path)
    rng = np.random.default_rng(0)
    for ids in ([], [0], [229, 0, 0, 49, 50, 229], rng.integers(0, ROWS, 500), np.arange(ROWS)):
        ids = np.asarray(ids, np.int64)
        slow, fast = pairs_of(memory, ids), pairs_of(with_file, ids)
        assert fast.column_names == [KEY, CAPTION] and fast.to_pylist() == slow.to_pylist()
        assert keys_of(with_file, ids).to_pylist() == keys_of(memory, ids).to_pylist()
        assert captions_of(with_file, ids).type == captions_of(memory, ids).type == pa.string()
    every = [row for shard in memory.shards for row in rows_of_shard(memory, shard)]
    found = pairs_of(with_file, np.arange(ROWS)).to_pydict()
    assert every == list(zip(found[KEY], found[CAPTION], strict=True))
    assert [len(batch) for batch in batches_of(pairs_file(with_file))] == [50, 50, 50, 50, 30]


def test_it_is_made_once_and_again_if_it_has_changed(memory, tmp_path):
    memory = cached(memory, tmp_path)
    path = pairs_file(memory)
    assert path.parent == tmp_path / "cache" and holds_pairs(path)
    made, content = path.stat().st_ino, path.read_bytes()
    pairs._made.clear()  # as another process would find it
    assert pairs_file(memory).stat().st_ino == made
    path.write_bytes(content[:-9])
    assert not holds_pairs(path)
    pairs._made.clear()
    assert pairs_file(memory).read_bytes() == content and holds_pairs(path)
    assert not list(path.parent.glob(".*.tmp"))


def test_where_it_cannot_be_made_rows_are_looked_up_in_the_metadata(memory, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    ids = np.array([3, 229])
    assert captions_of(cached(memory, tmp_path), ids) == captions_of(memory, ids)
    assert "looked up slowly" in caplog.text


def test_a_damaged_file_is_said_to_be_damaged_or_read_as_text(memory, tmp_path):
    """Whatever bit is flipped: nothing outside of the file's own rows is read."""
    memory = cached(memory, tmp_path)
    path, ids = pairs_file(memory), np.arange(ROWS)
    whole, chosen, refused = path.read_bytes(), random.Random(1), 0
    for _ in range(300):
        data = bytearray(whole)
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        path.write_bytes(data)
        try:
            assert len(look_up(path, ids, [KEY, CAPTION])) == ROWS
        except SnapshotError as error:
            assert str(path) in str(error)
            refused += 1
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SnapshotError, match="is damaged"):
        look_up(path, ids, [KEY])
    assert refused > 30
