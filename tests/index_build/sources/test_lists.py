"""Finding and reading a URL list's files: remote ones, folders, text without guessed types."""

import json

import fsspec
import pyarrow.parquet as pq
import pytest
from sharing import redirecting

from index_build.sources.lists import list_files
from index_build.sources.urls import rows_digest, select_rows
from xmore.config.sources import FiltersConfig, UrlListConfig
from xmore.files.digests import digest_file, digest_of
from xmore.files.errors import DatasetError

PLAIN = {"url": "url", "caption": "caption"}


def select(config: UrlListConfig, folder, filters: FiltersConfig | None = None):
    files = list_files(config.path, folder.parent / "copies")
    selected = select_rows(config, filters or FiltersConfig(), files, 100_000, folder)
    return selected, [r for f in folder.glob("*.parquet") for r in pq.read_table(f).to_pylist()]


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """A list that looks otherwise at its end than in the rows that DuckDB takes for a sample."""
    path = tmp_path_factory.mktemp("late") / "list.csv"
    lines = [f"http://h/{i},{i:05d},1" for i in range(90_000)] + ["http://h/x,an owl,0.4"]
    path.write_text("url,caption,similarity\n" + "\n".join(lines) + "\n")
    return path


def test_a_fraction_after_many_whole_numbers_counts(late, tmp_path):
    config = UrlListConfig(path=str(late), columns=PLAIN | {"similarity": "similarity"})
    selected, rows = select(config, tmp_path / "rows", FiltersConfig(min_similarity=0.3))
    assert (selected.asked, selected.filtered) == (90_001, {})
    assert {"00007", "an owl"} <= {row["caption"] for row in rows}
    config = config.model_copy(update={"where": "similarity < 0.5"})
    assert select(config, tmp_path / "few")[0].asked == 1


def test_the_cause_of_a_score_that_is_no_number(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("url,caption,s,w\na,a,nan,9\nb,b,x,9\nc,c,,9\nd,d,0.1,9\ne,e,1,9px\nf,f,1,9\n")
    columns = PLAIN | {"similarity": "s", "width": "w", "height": "w", "keep": ["s"]}
    filters = FiltersConfig(min_similarity=0.3, min_size=1)
    selected, rows = select(UrlListConfig(path=str(path), columns=columns), tmp_path / "r", filters)
    causes = {"similarity is not a number": 2, "similarity": 2, "size is not a number": 1}
    assert (selected.asked, selected.filtered) == (1, causes)
    assert rows[0] | {"row_key": ""} == {"row_key": "", "url": "f", "caption": "f", "s": "1"}


def test_a_sample_takes_its_share_of_bad_lines(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("url,caption\n" + "".join(f"http://h/{i},a\nlonely\n" for i in range(2000)))
    for how in ({"sample": 0.1}, {"limit": 400}):
        config = UrlListConfig(path=str(path), columns=PLAIN, **how)
        selected, rows = select(config, tmp_path / next(iter(how)))
        assert 130 < selected.failures["bad line in the list"] < 270
        assert selected.asked == len(rows) + selected.failures["bad line in the list"]
        assert selected.first_bad == f"{path}, line 3 (1 values in 2 columns)"


@pytest.mark.parametrize(
    ("row", "where", "extra"),
    [
        ("http://h/1,an owl,1", None, []),
        ("http://h/1,an owl,0.5", "score > 0.3", []),
        ("http://h/1,an owl,1", "score > 0.3", ["text"]),
        ("http://h/1,1.50,0.5", None, ["text"]),
    ],
)
def test_only_a_list_whose_types_were_guessed_is_listed_anew(tmp_path, row, where, extra):
    """The digest of version 2, but where a guess may have been wrong."""
    path = tmp_path / "list.csv"
    path.write_text(f"url,caption,score\n{row}\n")
    config = UrlListConfig(path=str(path), columns=PLAIN, where=where)
    how = config.model_dump(exclude={"path", "columns"}) | {"columns": config.names.model_dump()}
    content = [2, [digest_file(path)], how, FiltersConfig().model_dump(), *extra]
    assert rows_digest(config, FiltersConfig(), [path], tmp_path) == digest_of(content)


def test_a_remote_folder_keeps_its_folders(tmp_path):
    fs = fsspec.filesystem("memory")
    for name in ("a=1/data_0.csv", "a=2/data_0.csv", "_x/data_0.csv", "a=1/.data.csv", "[y]/*.csv"):
        fs.pipe(f"/lists/{name}", f"url,caption\nhttp://h/{name},x\n".encode())
    _, rows = select(UrlListConfig(path="memory://lists", columns=PLAIN), tmp_path / "rows")
    found = {row["url"].removeprefix("http://h/") for row in rows}
    assert found == {"a=1/data_0.csv", "a=2/data_0.csv", "[y]/*.csv"}


def test_an_address_may_have_a_question_in_it(web, tmp_path):
    files = list_files(web.url("captions.parquet?download=true"), tmp_path)
    assert [file.name for file in files] == ["captions.parquet"]
    assert pq.read_table(files[0]).num_rows
    with pytest.raises(DatasetError, match="cannot be fetched"):
        list_files(web.url("no.parquet?download=true"), tmp_path)


@pytest.mark.parametrize("before", ["", "simplecache::"])
def test_a_lists_server_may_be_here_but_leads_to_nothing_else_here(web, tmp_path, before):
    with redirecting(web.url("captions.parquet")) as server:
        path = f"{before}{server}/list.parquet"
        with pytest.raises(DatasetError, match=r"cannot be fetched .*private address"):
            list_files(path, tmp_path)
        assert not web.asked
        assert [file.name for file in list_files(path, tmp_path, True)] == ["list.parquet"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_of_too_many_columns_is_refused(tmp_path, kind):
    path, names = tmp_path / f"list.{kind}", ["url", "caption", *map(str, range(10_000))]
    rows = [dict.fromkeys(names[i : i + 900], "x") for i in range(0, len(names), 900)]
    content = "".join(f"{json.dumps(row)}\n" for row in rows)
    path.write_text(content if kind == "jsonl" else ",".join(names) + "\n")
    with pytest.raises(DatasetError, match="10,002 columns"):
        select(UrlListConfig(path=str(path), columns=PLAIN), tmp_path / "rows")
