from dataclasses import replace

import pyarrow as pa
import pytest

from xmore.memory.leaks import binds_bytes, leaked_pairs, rows_with
from xmore.memory.rows import keys_of
from xmore.memory.snapshot import Columns, Snapshot, open_snapshot, resolve_current
from xmore.store import schemas

QUERIES = pa.table({"query_id": [4, 5, 6, 7], "sha256": ["aa", "bb", "cc", "aa"]})
CANDIDATES = pa.table(
    {
        "query_id": [4, 5, 6, 7],
        "memory_ids": [[10, 11, 12], [13, 10], [], [12]],
        "memory_keys": [["aa", "x1", "x2"], ["x3", "aa"], [], ["x2"]],
        "similarities": [[0.99, 0.75, 0.5], [0.75, 0.2], [], [0.4]],
    },
    schema=schemas.CANDIDATES,
)
NOTHING = pa.table({"memory_id": pa.array([], "int64"), "memory_key": pa.array([], "string")})


def found(same, threshold):
    table = leaked_pairs(QUERIES, CANDIDATES, same, threshold)
    assert table.schema == schemas.LEAKS
    rows = table.select(["query_id", "memory_id", "memory_key", "kind", "similarity"]).to_pylist()
    return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize(
    ("threshold", "pairs"),
    [(0.995, []), (0.76, [(4, 10)]), (0.75, [(4, 10), (4, 11), (5, 13)])],
)
def test_near_begins_at_the_threshold(threshold, pairs):
    rows = found(NOTHING, threshold)
    assert [row[:2] for row in rows] == pairs
    assert {row[3] for row in rows} <= {"near"}


def test_same_bytes_whether_candidates_or_not_and_never_twice():
    # Row 10 is a candidate of query 4, but not of 7, which is the same image; row 99 of neither.
    same = pa.table({"memory_id": [10, 99, 50], "memory_key": ["aa", "aa", "of another dataset"]})
    nine = pytest.approx(0.99)
    assert found(same, 0.75) == [
        (4, 10, "aa", "same bytes", nine),
        (4, 11, "x1", "near", 0.75),
        (4, 99, "aa", "same bytes", None),
        (5, 13, "x3", "near", 0.75),
        (7, 10, "aa", "same bytes", None),
        (7, 99, "aa", "same bytes", None),
    ]


@pytest.fixture
def snapshot(world) -> Snapshot:
    memory = world.root / "memory"
    return open_snapshot(memory, resolve_current(memory))


@pytest.mark.parametrize("batch", [7, 65_536])
def test_rows_are_found_by_their_key_in_every_shard(snapshot, monkeypatch, batch):
    monkeypatch.setattr("xmore.memory.leaks.BATCH", batch)
    ids = [0, 8, 99, 100, snapshot.rows - 1]
    keys = keys_of(snapshot, pa.array(ids).to_numpy())
    rows = rows_with(snapshot, pa.concat_arrays([keys, pa.array(["absent"])]))
    assert rows.to_pydict() == {"memory_id": ids, "memory_key": keys.to_pylist()}
    assert binds_bytes(snapshot)


def test_an_adopted_folder_cannot_tell(snapshot):
    adopted = Snapshot(
        snapshot.path, "a", snapshot.manifest, snapshot.shards, Columns(None, "caption", "key")
    )
    assert not binds_bytes(adopted)
    mixed = {"sources": {"a": {"kind": "urls"}, "b": {"kind": "clip_retrieval"}}}
    assert not binds_bytes(replace(snapshot, manifest=snapshot.manifest | mixed))
    assert rows_with(adopted, keys_of(snapshot, pa.array([3]).to_numpy())).num_rows == 0
