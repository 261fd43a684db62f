"""What gc rewrites of a shard, and what it leaves as it is."""

import json

import numpy as np
import pyarrow as pa
import pytest

from index_build.base.features import KINDS, part, record_path, save_array, write_record
from index_build.base.tables import write_table
from index_build.upkeep.gc import _new_features


@pytest.fixture
def features(tmp_path):
    """The features of a shard of two rows."""
    for kind in KINDS:
        part(tmp_path, kind, 0).parent.mkdir()
    record_path(tmp_path, 0).parent.mkdir()
    write_table(part(tmp_path, "metadata", 0), pa.table({"row_key": ["a", "b"]}))
    for kind in ("img_emb", "text_emb"):
        save_array(part(tmp_path, kind, 0), np.eye(2, dtype=np.float32))
    write_record(tmp_path, 0, {"rows": 2, "rejected": {"c": "not an image"}, "files": {}})
    return tmp_path


def changed(features, live):
    """The changes; nothing is moved."""
    return list(_new_features(features, 0, pa.chunked_array([live]), keep=True))


def test_features_of_which_all_rows_stay_are_left_where_a_snapshot_links_them(features):
    (record,) = changed(features, ["a", "b"])
    assert record.target == record_path(features, 0)
    facts = json.loads(record.new.read_text())
    assert facts["rows"] == 2 and set(facts["files"]) == set(KINDS)


def test_features_that_lose_a_row_are_rewritten(features):
    changes = changed(features, ["a"])
    assert [change.target for change in changes[:-1]] == [part(features, k, 0) for k in KINDS]
    assert json.loads(changes[-1].new.read_text())["rows"] == 1
