"""Whatever tables hold: rows in = rows out + rows counted, and every text as it was written."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from test_fuzz import ANY, json_values, one_line

from index_build.sources.urls import select_rows
from xmore.config.sources import FiltersConfig, UrlListConfig
from xmore.files.errors import XmoreError
from xmore.files.records import read_records
from xmore.files.tables import as_text, read_columns

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)
# Each is one bad line, whatever lines are around it.
BAD_LINES = [b"lonely", b"a,b,c", b"\xff,x", b"n\0l,x", b'"x" y,z']
rows_or_bad = st.lists(st.tuples(texts, texts) | st.sampled_from(BAD_LINES), max_size=12)


def as_csv(rows, quoting: int, ending: str) -> bytes:
    made = b"url,caption\n"
    for row in rows:
        if isinstance(row, tuple):
            line = io.StringIO()
            csv.writer(line, quoting=quoting, lineterminator=ending).writerow(row)
            made += line.getvalue().encode()
        else:
            made += row + ending.encode()
    return made


@ANY
@given(
    rows_or_bad,
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_lines_of_csv(tmp_path_factory, rows, quoting, ending):
    path = tmp_path_factory.getbasetemp() / "lines.csv"
    path.write_bytes(as_csv(rows, quoting, ending))
    found = list(read_records(path, ".csv", needed=["url", "caption"]))
    good = [tuple(r.values[n] or "" for n in ("url", "caption")) for r in found if not r.flaw]
    assert good == [row for row in rows if isinstance(row, tuple)]
    assert sum(bool(r.flaw) for r in found) == sum(isinstance(row, bytes) for row in rows)


@ANY
@given(rows_or_bad, st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_a_list_in_csv(tmp_path_factory, rows, quoting):
    folder = tmp_path_factory.mktemp("list")
    path = folder / "list.csv"
    path.write_bytes(as_csv(rows, quoting, "\n"))
    config = UrlListConfig(path=str(path), columns={"url": "url", "caption": "caption"})
    selected = select_rows(config, FiltersConfig(), [path], 5, folder / "rows")
    pairs = {(r[0].strip(" "), r[1]) for r in rows if isinstance(r, tuple)}
    bad = sum(isinstance(row, bytes) for row in rows)
    assert selected.asked == len(pairs) + bad
    assert selected.failures.get("bad line in the list", 0) == bad
    out = [row for f in folder.glob("rows/*.parquet") for row in pq.read_table(f).to_pylist()]
    assert {(row["url"], row["caption"]) for row in out} <= pairs
    assert selected.asked == len(out) + sum(selected.failures.values())


@ANY
@given(st.lists(st.fixed_dictionaries({"path": json_values, "caption": json_values}), max_size=6))
def test_json_lines(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    table, bad = read_columns(path, ["path", "caption"], ".csv")
    nested = [row for row in rows if any(isinstance(v, list | dict) for v in row.values())]
    assert (len(table), len(bad)) == (len(rows) - len(nested), len(nested))
    for row, text in zip(
        [r for r in rows if r not in nested], table["path"].to_pylist(), strict=True
    ):
        if isinstance(row["path"], str):
            assert (text or "") == row["path"]


@ANY
@given(st.binary(max_size=80), st.sampled_from(["csv", "tsv", "jsonl", "csv.gz"]))
def test_any_bytes(tmp_path_factory, content, ending):
    path = tmp_path_factory.getbasetemp() / f"any.{ending}"
    path.write_bytes(b"url,caption\n" + content if ending == "csv" else content)
    try:
        read_columns(path, ["url", "caption"], ".csv")
    except XmoreError as error:
        one_line(error)


KINDS = [
    (pa.string(), texts),
    (pa.large_string(), texts),
    (pa.dictionary(pa.int8(), pa.string()), texts),
    (pa.binary(), texts.map(str.encode) | st.binary(max_size=9)),
    (pa.large_binary(), texts.map(str.encode)),
    (pa.null(), st.none()),
    (pa.int64(), st.integers(-9, 9)),
    (pa.float32(), st.just(0.5)),
    (pa.bool_(), st.booleans()),
    (pa.list_(pa.string()), st.lists(texts, max_size=2)),
    (pa.struct([("en", pa.string())]), st.fixed_dictionaries({"en": texts})),
]


@ANY
@given(st.data())
def test_columns_of_parquet(tmp_path_factory, data):
    kind, values = data.draw(st.sampled_from(KINDS))
    column = data.draw(st.lists(values | st.none(), max_size=6))
    path = tmp_path_factory.getbasetemp() / "columns.parquet"
    pq.write_table(pa.table({"caption": pa.array(column, kind)}), path)
    read = read_columns(path, ["caption"], ".csv").table["caption"]
    try:
        found = as_text(read, "caption").to_pylist()
    except XmoreError as error:
        one_line(error)
        assert kind in [kind for kind, _ in KINDS[6:]]
        return
    as_read = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in column]
    assert found == as_read
