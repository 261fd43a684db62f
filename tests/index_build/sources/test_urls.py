"""Selecting rows of a URL list: kinds, presets, conditions, samples, limits, shards."""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from index_build.sources import urls
from index_build.sources.lists import list_files
from index_build.sources.urls import rows_digest, select_rows
from xmore.config.sources import FiltersConfig, UrlListConfig
from xmore.files.digests import digest_text
from xmore.files.errors import ConfigError, DatasetError


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """500 rows as Parquet, CSV and JSONL: row 7 has no caption, 8 no URL, 9 is row 10 again."""
    folder = tmp_path_factory.mktemp("lists")
    duckdb.sql(
        f"""copy (
          select i as SAMPLE_ID,
                 case when i = 8 then null else 'http://h/' || greatest(i, 10) end as URL,
                 case when i = 7 then '  ' else 'a "picture", ' || greatest(i, 10) end as TEXT,
                 'CC' as LICENSE, if(i % 2 = 0, 'NSFW', 'UNLIKELY') as NSFW, i / 500 as similarity
          from range(500) t(i) where i >= 7) to '{folder}/list.parquet'"""
    )
    for kind, options in (("csv", "header"), ("jsonl", "format json")):
        source, target = folder / "list.parquet", folder / f"list.{kind}"
        duckdb.sql(f"copy (from '{source}') to '{target}' ({options})")
    return folder


def select(config: UrlListConfig, folder: Path, shard_rows: int = 100):
    files = list_files(config.path, folder)
    selected = select_rows(config, FiltersConfig(), files, shard_rows, folder)
    tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    return selected, tables


def keys(tables) -> list[str]:
    return [key for table in tables for key in table["row_key"].to_pylist()]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_each_kind_of_list_gives_the_same_rows(lists, tmp_path, kind):
    selected, tables = select(UrlListConfig(path=str(lists / f"list.{kind}")), tmp_path / "rows")
    # 493 rows, of which two are the same; two of the others are not worth a download.
    assert (selected.asked, selected.failures) == (492, {"no URL": 1, "empty caption": 1})
    assert [table.num_rows for table in tables] == [100, 100, 100, 100, 90]
    assert selected.shards == 5
    assert tables[0].column_names == ["row_key", "url", "caption", "LICENSE", "NSFW", "similarity"]
    assert keys(tables) == sorted(keys(tables)) and len(set(keys(tables))) == 490
    for row in tables[0].to_pylist():
        assert row["row_key"] == digest_text(f"{row['url']}\n{row['caption']}")
        assert row["caption"] == f'a "picture", {row["url"].removeprefix("http://h/")}'


def test_a_smaller_sample_or_limit_is_part_of_a_larger_one(lists, tmp_path):
    path = lists / "list.parquet"
    found = {
        name: set(keys(select(UrlListConfig(path=str(path), **how), tmp_path / name)[1]))
        for name, how in {
            "tenth": {"sample": 0.1},
            "fifth": {"sample": 0.2},
            "all": {},
            "few": {"limit": 20},
            "some": {"limit": 40},
        }.items()
    }
    assert found["tenth"] < found["fifth"] < found["all"]
    assert found["few"] < found["some"] < found["all"]
    assert 25 < len(found["tenth"]) < 75 and len(found["few"]) in (18, 19, 20)


def test_a_condition_is_sql_over_the_list(lists, tmp_path):
    where = "NSFW <> 'NSFW' and similarity >= 0.5 -- a comment"
    selected, _ = select(
        UrlListConfig(path=str(lists / "list.csv"), where=where), tmp_path / "rows"
    )
    assert selected.asked == 125


def test_a_row_without_the_value_that_a_filter_reads_is_filtered(tmp_path):
    columns = "'http://a/' || i as url, 'a cat ' || i as caption, w, 300 as h, s, n"
    values = "(1, 300, 0.5, 'U'), (2, null, 0.5, 'U'), (3, 300, null, 'U'), (4, 300, 0.5, null)"
    path = tmp_path / "list.parquet"
    duckdb.sql(f"copy (select {columns} from (values {values}) t(i, w, s, n)) to '{path}'")
    names = {"width": "w", "height": "h", "similarity": "s", "nsfw": "n"}
    filters = FiltersConfig(min_size=200, min_similarity=0.3, nsfw=["U"])
    config = UrlListConfig(path=str(path), columns=names)
    selected = select_rows(config, filters, [path], 10, tmp_path / "rows")
    assert (selected.asked, selected.filtered) == (1, {"nsfw": 1, "similarity": 1, "size": 1})


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("similarty > 0.3", "similarty"),
        ("similarity >", "syntax error"),
        ("TEXT in (select content from read_text('/etc/hostname'))", "/etc/hostname"),
        ("similarity > 'abc'::int", "`urls.where`.*abc"),
    ],
)
def test_a_bad_condition_is_one_line_and_leaves_nothing(lists, tmp_path, where, says):
    config = UrlListConfig(path=str(lists / "list.parquet"), where=where)
    with pytest.raises((ConfigError, DatasetError), match=says) as caught:
        select(config, tmp_path / "rows")
    assert "\n" not in str(caught.value) and not (tmp_path / "rows").exists()


ENDLESS = "levenshtein(repeat(URL, 20), repeat(TEXT, 20)) >= 0"
DEAF = "levenshtein(repeat(URL, 20000), repeat(TEXT, 20000)) >= 0"  # one row takes minutes


def test_a_condition_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(urls, "SECONDS", 0.2)
    monkeypatch.setattr(urls, "SECONDS_A_ROW", 0.000001)
    path = tmp_path / "list.parquet"
    columns = "'http://h/' || i as URL, 'picture ' || i as TEXT"
    duckdb.sql(f"copy (select {columns} from range(200000) t(i)) to '{path}'")
    with pytest.raises(ConfigError, match=r"`urls.where`: was stopped after 0 s.* 200,000 rows"):
        select(UrlListConfig(path=str(path), where=ENDLESS), tmp_path / "rows")


def test_a_function_that_hears_no_interrupt_ends_with_its_process(warm, lists, tmp_path):
    code = """if True:
        import sys
        from pathlib import Path
        from index_build.sources import urls
        from xmore.config.sources import FiltersConfig, UrlListConfig
        from xmore.files import sql
        urls.SECONDS, sql.GRACE = 0.2, 0.2
        config = UrlListConfig(path=sys.argv[1], where=sys.argv[2])
        urls.select_rows(config, FiltersConfig(), [Path(sys.argv[1])], 100, Path(sys.argv[3]))"""
    code, _, said = warm.code(code, lists / "list.parquet", DEAF, tmp_path / "rows").end(60)
    assert code == 2 and said.startswith("error: `urls.where`: was stopped after 1 seconds"), said
    assert len(select(UrlListConfig(path=str(lists / "list.parquet")), tmp_path / "rows")[1]) == 5


def test_columns_by_preset_and_by_name(lists, tmp_path):
    path = lists / "list.parquet"
    with pytest.raises(ConfigError, match=r"no column `url`.*SAMPLE_ID"):
        select(UrlListConfig(path=str(path), columns={"caption": "TEXT"}), tmp_path / "a")
    names = {"url": "URL", "caption": "LICENSE", "keep": ["SAMPLE_ID", "row_key", "absent"]}
    _, tables = select(UrlListConfig(path=str(path), columns=names), tmp_path / "b")
    assert tables[0].column_names == ["row_key", "url", "caption", "SAMPLE_ID"]
    assert set(tables[0]["caption"].to_pylist()) == {"CC"}
    re_laion = tmp_path / "re-laion.parquet"
    duckdb.sql(
        f"copy (select URL as url, TEXT as caption, 0.1 as punsafe from '{path}') to '{re_laion}'"
    )
    config = UrlListConfig(path=str(re_laion), columns="re-laion")
    assert select(config, tmp_path / "c")[1][0].column_names[-1] == "punsafe"


def test_a_folder_is_one_list(lists, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(2):
        duckdb.sql(
            f"copy (from '{lists}/list.parquet' where SAMPLE_ID % 2 = {i}) "
            f"to '{folder}/part-{i}.parquet'"
        )
    (folder / "_SUCCESS").touch()
    _, whole = select(UrlListConfig(path=str(lists / "list.parquet")), tmp_path / "a")
    _, parts = select(UrlListConfig(path=str(folder)), tmp_path / "b")
    assert keys(whole) == keys(parts)


def test_no_list_and_broken_lists_are_named(tmp_path):
    for name, data in (("a.parquet", b"no parquet"), ("a.doc", b"http://h/1\n")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DatasetError, match=name):
            select(UrlListConfig(path=str(tmp_path / name)), tmp_path / "rows")
    (tmp_path / "b.csv").write_text("url,caption\n")
    for path in (tmp_path / "nowhere.csv", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetError, match="URL list"):
            list_files(str(path), tmp_path)


def test_the_digest_is_of_content_and_selection(lists, tmp_path):
    copy = tmp_path / "copy.csv"
    copy.write_bytes((lists / "list.csv").read_bytes())

    def digest(path, **how):
        config = UrlListConfig(path=str(path), **how)
        return rows_digest(config, FiltersConfig(), [path], tmp_path / "cache")

    first = digest(copy)
    assert first == digest(lists / "list.csv")
    assert (
        len({first, digest(copy, sample=0.5), digest(copy, where="1=1"), digest(copy, limit=9)})
        == 4
    )
    copy.write_text(copy.read_text() + "999,http://h/999,one more,CC,UNLIKELY,0.1\n")
    assert digest(copy) != first
