"""`xmore sql`: its answers, what it refuses, and its prompt on a real terminal."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

import duckdb
import pyarrow.parquet as pq
import pytest

from flows.cli import sql as cli
from xmore.files.errors import QueryError
from xmore.results.runs import load_run
from xmore.results.views import open_views

XMORE = str(Path(sys.executable).parent / "xmore")


@pytest.fixture
def sql(done, xmore):
    def ask(*arguments, stdin=""):
        results = ("--results", done.config.results)
        return xmore("sql", done.name, *arguments, *results, stdin=stdin)

    return ask


VIEWS = {
    "queries", "classes", "candidates_long", "captions_long", "scores_long", "predictions",
    "leaderboard", "disagreements", "by_class", "runs",
}  # fmt: skip


def test_all_views_are_there_and_open(sql):
    answer = sql("select view_name from duckdb_views() where not internal", "--format", "csv")
    there = set(answer.stdout.replace('"', "").split())
    assert there >= VIEWS
    for view in there - {"view_name"}:
        assert sql(f"select count(*) from {view}").returncode == 0, view


def test_what_the_views_say_agrees(sql):
    query = """
      select (select max(abs(b.top1 - l.top1)) from leaderboard l join (
                select method, adjustment, sum(top1 * n) / sum(n) as top1 from by_class
                group by all) b on b.method = l.method
                and b.adjustment is not distinct from l.adjustment) as by_class_differs,
             (select max(abs(total - 1)) from (
                select sum(image_score) as total from scores_long group by query_id)) as off_one,
             (select count(*) from scores_long) as scores,
             (select count(*) from runs) >= 1 as has_runs,
             (select bool_and(correct = (prediction = label)) from predictions) as correct"""
    (row,) = json.loads(sql(query, "--format", "json").stdout)
    assert row["by_class_differs"] < 1e-12 and row["off_one"] < 1e-5
    assert row["scores"] == 20 * 5 and row["has_runs"] and row["correct"]


def test_formats(sql, tmp_path):
    query = "select query_id, top5, uri from predictions where method = 'clip' order by query_id"
    assert "──" in sql(query).stdout and sql(query).stderr == ""
    lines = sql(query, "--format", "csv").stdout.splitlines()
    assert lines[0] == '"query_id","top5","uri"' and len(lines) == 21
    rows = json.loads(sql("--format", "json", stdin=query).stdout)
    assert rows[0]["query_id"] == 0 and len(rows[0]["top5"]) == 5
    target = tmp_path / "answer.parquet"
    assert sql(query, "--format", "parquet", "--output", str(target)).returncode == 0
    assert pq.read_table(target).num_rows == 20 and len(list(tmp_path.iterdir())) == 1


def test_the_format_follows_the_files_ending(sql, tmp_path):
    query = "select query_id, dataset from predictions order by all"
    paths = {form: tmp_path / f"rows.{form}" for form in ("csv", "json", "parquet")}
    for path in (*paths.values(), tmp_path / "ROWS.CSV"):
        answer = sql(query, "--output", str(path))
        assert (answer.returncode, answer.stdout) == (0, ""), answer
    rows = pq.read_table(paths["parquet"]).num_rows
    assert rows == len(json.loads(paths["json"].read_text())) > 20
    assert len(paths["csv"].read_text().splitlines()) == rows + 1
    assert paths["csv"].read_bytes() == (tmp_path / "ROWS.CSV").read_bytes()
    assert sql(query, "--output", str(tmp_path / "x.txt"), "--format", "csv").returncode == 0
    for name, *form in (["y.txt"], ["csv"], ["y.csv", "--format", "table"], ["y.csv", "--json"]):
        answer = sql(query, "--output", str(tmp_path / name), *form)
        assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer
        assert not (tmp_path / name).exists()


def test_an_explained_plan_keeps_its_lines(sql):
    assert sql("explain select 1").stdout.count("\n") > 3


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("selec 1", "syntax error"),
        ("select nope from queries", "nope"),
        ("drop view queries", "read-only"),
        ("create table t as select 1", "read-only"),
        ("copy queries to 'x.csv'", "read-only"),
        ("attach 'x.db'", "read-only"),
        ("install httpfs", "read-only"),
        ("set enable_external_access = true", "read-only"),
        ("select 1; drop view queries", "one query"),
        ("explain analyze copy queries to '{part}'", "read-only, got COPY"),
        ("EXPLAIN\n ANALYZE copy queries to '{part}'", "read-only, got COPY"),
        ("explain analyze /* /* */ select 1 -- */ copy queries to '{part}'", "error"),
        ("explain (analyze) copy queries to '{part}'", "error"),
        ("explain copy queries to '{part}'", "read-only, got COPY"),
        ("import database '{part}'", "read-only, got PRAGMA"),
        ("pragma import_database('{part}')", "read-only, got PRAGMA"),
        ("pragma profiling_output = '{part}'", "read-only"),
        ("explain analyze create table t as select 1", "read-only, got CREATE"),
        ("/* */ explain -- \n analyze copy queries to '{part}'", "error"),
        ("select * from query('copy queries to ''{part}''')", "single SELECT"),
        ("call enable_logging()", "read-only"),
        ("execute p", "read-only"),
        ("load httpfs", "read-only"),
        ("select * from glob('/etc/*')", "disabled by configuration"),
        ("select * from sniff_csv('/etc/passwd')", "disabled by configuration"),
        ("select * from read_blob('/proc/self/environ')", "disabled by configuration"),
        ("select * from read_csv('{part}/../../../../../../../../etc/passwd')", "disabled by"),
        ("select * from sqlite_scan('x.db', 't')", "extension"),
        ("select getenv('HOME')", "getenv"),
        ("prepare p as copy queries to '{part}'", "read-only"),
        ("export database '{part}'", "read-only"),
        ("select * from read_text('/etc/hostname')", "disabled by configuration"),
        ("select * from 'https://127.0.0.1:1/x.parquet'", "error"),
    ],
)
def test_what_does_not_only_read_is_refused_in_one_line(sql, done, query, says):
    part = min(done.config.results.glob("store/queries/*/*/part-*.parquet"))
    before = part.read_bytes()
    answer = sql(query.replace("{part}", str(part)))
    assert part.read_bytes() == before
    assert answer.returncode == 2 and says in answer.stderr
    assert answer.stderr.count("\n") == 1 and answer.stdout == ""


def test_explain_explains_what_reads(sql):
    for query in ("explain select 1", "Explain Analyze select * from queries"):
        answer = sql(query)
        assert answer.returncode == 0 and answer.stdout, answer


RECURSIVE = "with recursive r as (select 1 as i union all select i + 1 from r) select"


@pytest.mark.parametrize(
    ("query", "form"),
    [
        (f"{RECURSIVE} max(i) from r", "table"),
        (f"explain analyze {RECURSIVE} max(i) from r", "table"),
        (f"{RECURSIVE} i from r", "csv"),  # rows come while it runs
        ("select * from range(1000000000000)", "parquet"),
        ("select * from range(1000000000000)", "json"),
    ],
)
def test_a_query_without_end_is_stopped(sql, tmp_path, query, form):
    output = [] if form == "table" else ["--output", tmp_path / "rows"]
    answer = sql(query, "--timeout", "0.5", "--format", form, *output)
    assert answer.returncode == 2 and "error: the query was stopped after 0.5 s" in answer.stderr
    assert answer.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


DEAF = "levenshtein(repeat('ab', 100000), repeat('ba', 100000))"


def test_a_function_that_hears_no_interrupt_ends_with_its_process(warm, done, tmp_path):
    code = "from xmore.files import sql; sql.GRACE = 0.2; from flows.cli.main import app; app()"
    words = (done.name, f"select {DEAF}", "--timeout", "0.5", "--output", tmp_path / "rows.csv")
    process = warm.code(code, "sql", *words, "--results", done.config.results)
    said = process.end(60)
    assert said[0] == 2 and said[2].startswith("error: the query was stopped after 0.5 s"), said
    assert said[2].count("\n") == 1 and not list(tmp_path.iterdir())


def test_an_interrupt_that_comes_between_two_steps_is_repeated(done, monkeypatch):
    connection = open_views(load_run(done.config.results, done.name))
    only_reads = cli.only_reads

    def late(*arguments):
        time.sleep(0.3)  # the time is over before DuckDB works
        return only_reads(*arguments)

    monkeypatch.setattr(cli, "only_reads", late)
    with pytest.raises(QueryError, match="stopped after"):
        cli.run_query(connection, f"{RECURSIVE} max(i) from r", "json", None, 0.1)


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_an_error_at_a_later_row_is_duckdbs(sql, tmp_path, form):
    query = "select case when i = 50000 then error('odd') else '' end from range(100000) t(i)"
    answer = sql(query, "--format", form, "--output", tmp_path / "rows")
    assert answer.returncode == 2 and answer.stderr == "error: Invalid Input Error: odd.\n", answer
    assert not list(tmp_path.iterdir())


def test_a_lack_of_memory_says_what_helps(done, monkeypatch):
    connection = open_views(load_run(done.config.results, done.name))
    error = duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block of 2 GB")
    monkeypatch.setattr(cli, "only_reads", MagicMock(side_effect=error))
    with pytest.raises(QueryError, match=r"block of 2 GB\. Free memory, or raise its limit"):
        cli.run_query(connection, "select 1", "json", None)


def test_no_control_character_reaches_a_terminal(done):
    query = "select chr(27) || '[31m' as red, chr(8238) || 'x' as turned"
    command = [XMORE, "sql", done.name, query, "--results", str(done.config.results), "--format"]
    for form in ("table", "csv", "json"):
        controller, terminal = pty.openpty()
        process = subprocess.run([*command, form], stdout=terminal, timeout=60, check=True)
        os.close(terminal)
        said = os.read(controller, 10_000).decode()
        os.close(controller)
        assert process.returncode == 0 and "[31m" in said
        assert "\x1b[31m" not in said and "\u202e" not in said, form
    raw = subprocess.run([*command, "csv"], capture_output=True, timeout=60, check=True).stdout
    assert b"\x1b[31m" in raw  # a file or a pipe gets what is there


def test_parquet_wants_a_file_and_a_file_that_cannot_be_is_named(sql, tmp_path):
    assert "--output" in sql("select 1", "--format", "parquet").stderr
    answer = sql("select 1", "--format", "csv", "--output", str(tmp_path / "no" / "x.csv"))
    assert answer.returncode == 2 and "x.csv" in answer.stderr


def test_the_prompt_on_a_terminal(done):
    controller, terminal = pty.openpty()
    command = [XMORE, "sql", done.name, "--results", str(done.config.results)]
    process = subprocess.Popen(
        command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.write(controller, b"select 40 +\n2 as answer;\nselect oops;\n\x04")
    out, error = process.communicate(timeout=60)
    os.close(controller)
    assert "Views: averages, by_class" in out and "answer" in out and "42" in out
    assert "oops" in error and process.returncode == 0
