import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from xmore.store import schemas
from xmore.store.schemas import fixed_lists, lists, matrix_lists, to_matrix, to_ragged


def through_parquet(column, kind, row_group=None):
    """The column as a table read back from Parquet, in several chunks if there are row groups."""
    stream = io.BytesIO()
    table = pa.table({"c": column}, schema=pa.schema([("c", kind)]))
    pq.write_table(table, stream, row_group_size=row_group or max(1, table.num_rows))
    return pq.read_table(stream)


FLOATS = pa.list_(pa.float32())
NAN = float("nan")

shapes = st.tuples(st.integers(1, 6), st.integers(1, 4))


@st.composite
def matrix_and_mask(draw):
    n, c = draw(shapes)
    matrix = np.random.default_rng(draw(st.integers(0, 99))).random((n, c), np.float32)
    present = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    return matrix, np.array(present)


@given(matrix_and_mask(), st.integers(1, 4))
def test_matrix_lists_round_trip_with_nulls(case, row_group):
    matrix, present = case
    column = matrix_lists(matrix, present)
    assert column.is_valid().to_pylist() == present.tolist()
    expected = np.where(present[:, None], matrix, np.nan)
    got = to_matrix(through_parquet(column, FLOATS, row_group)["c"])
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == np.float32


@given(matrix_and_mask(), st.data())
def test_a_slice_gives_its_own_rows(case, data):
    matrix, present = case
    start = data.draw(st.integers(0, len(matrix)))
    length = data.draw(st.integers(0, len(matrix)))
    rows = slice(start, start + length)
    expected = np.where(present[:, None], matrix, np.nan)[rows]
    assume(present[rows].any())  # see test_only_nulls
    for table in (
        pa.table({"c": matrix_lists(matrix, present)}),
        through_parquet(matrix_lists(matrix, present), FLOATS, 2),
    ):
        got = to_matrix(table.slice(start, length)["c"])
        np.testing.assert_array_equal(got, expected)
    fixed = through_parquet(fixed_lists(matrix), pa.list_(pa.float32(), matrix.shape[1]), 2)
    if len(expected):
        np.testing.assert_array_equal(to_matrix(fixed.slice(start, length)["c"]), matrix[rows])


@given(shapes.flatmap(lambda s: st.lists(
    st.lists(st.booleans(), min_size=s[1], max_size=s[1]), min_size=s[0], max_size=s[0])),
    st.data())  # fmt: skip
def test_ragged_lists_round_trip_and_slice(keep, data):
    keep = np.array(keep)
    values = np.arange(keep.size).reshape(keep.shape)
    expected = [row[mask].tolist() for row, mask in zip(values, keep, strict=True)]
    column = lists(values, keep, pa.int64())
    assert column.to_pylist() == expected
    table = through_parquet(column, pa.list_(pa.int64()), data.draw(st.integers(1, 3)))
    start, length = data.draw(st.integers(0, len(keep))), data.draw(st.integers(0, len(keep)))
    for part in (table, pa.table({"c": column})):
        flat, lengths = to_ragged(part.slice(start, length)["c"])
        mine = expected[start : start + length]
        assert flat.tolist() == [value for row in mine for value in row]
        assert lengths.tolist() == [len(row) for row in mine]


def test_ragged_strings_and_nulls():
    texts = np.array([["a", "b"], ["", "ä"], ["x", None]], object)
    column = lists(texts, np.array([[True, True], [False, True], [False, True]]), pa.string())
    assert column.to_pylist() == [["a", "b"], ["ä"], [None]]
    flat, lengths = to_ragged(through_parquet(column, pa.list_(pa.string()))["c"])
    assert (flat.tolist(), lengths.tolist()) == (["a", "b", "ä", None], [2, 1, 1])
    flat, lengths = to_ragged(pa.chunked_array([pa.array([[1], None, [], [2, 3]])]))
    assert (flat.tolist(), lengths.tolist()) == ([1, 2, 3], [1, 0, 0, 2])


def test_values_under_a_null_are_not_read():
    offsets, mask = pa.array([0, 2, 4, 6], pa.int32()), pa.array([False, True, False])
    values = pa.array([1, 2, 88, 99, 3, 4], pa.float32())
    column = pa.chunked_array([pa.ListArray.from_arrays(offsets, values, mask=mask)])
    np.testing.assert_array_equal(to_matrix(column), [[1, 2], [NAN, NAN], [3, 4]])
    flat, lengths = to_ragged(column)
    assert (flat.tolist(), lengths.tolist()) == ([1, 2, 3, 4], [2, 0, 2])


def test_a_nan_in_a_list_is_not_a_null():
    column = matrix_lists(np.array([[NAN, 1]], np.float32))
    assert column.null_count == 0 and column[0].as_py()[1] == 1.0


def test_only_nulls():
    column = matrix_lists(np.ones((3, 2), np.float32), np.zeros(3, bool))
    assert column.to_pylist() == [None, None, None]
    assert to_matrix(through_parquet(column, FLOATS)["c"]).shape == (3, 0)


@pytest.mark.parametrize("kind", [FLOATS, pa.list_(pa.float32(), 4)], ids=["lists", "fixed lists"])
def test_empty_columns(kind):
    for column in (
        pa.chunked_array([], kind),
        pa.chunked_array([pa.array([], kind)]),
        through_parquet(pa.array([], kind), kind)["c"],
        pa.chunked_array([pa.array([[1, 2, 3, 4]], kind)]).slice(0, 0),
    ):
        assert to_matrix(column).shape[0] == 0
    flat, lengths = to_ragged(pa.chunked_array([], FLOATS))
    assert (len(flat), len(lengths)) == (0, 0)
    assert len(lists(np.zeros((0, 3)), np.zeros((0, 3), bool), pa.float32())) == 0
    assert len(matrix_lists(np.zeros((0, 3), np.float32))) == 0


def test_no_schema_between_queries_and_metrics_holds_a_label():
    assert "label" in schemas.QUERIES.names
    between = (schemas.CANDIDATES, schemas.CAPTIONS, schemas.SCORES, schemas.PREDICTIONS)
    assert not [name for schema in between for name in schema.names if "label" in name]
