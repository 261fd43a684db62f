"""What `import xmore` offers says and does what the commands do."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import xmore as api
from xmore.files.errors import ConfigError, QueryError, RunError

LOADED = """
import sys
import xmore
assert {"benchmark", "classify", "open_run", "reindex", "search"} <= set(dir(xmore))
print(sorted({"torch", "prefect", "duckdb", "pyarrow", "numpy"} & set(sys.modules)))
xmore.open_run
print(sorted({"torch", "prefect", "open_clip"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def run(done):
    return api.open_run(done.name, done.config.results)


@pytest.fixture
def photo(world) -> Path:
    return next((world.root / "queries").rglob("*.jpg"))


def test_to_import_it_loads_nothing_slow():
    answer = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert answer.stdout.split("\n")[:2] == ["[]", "[]"], answer.stderr


def test_all_names_are_there_and_no_others():
    assert all(callable(getattr(api, name)) for name in api.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = api.nothing


def test_a_runs_tables_are_the_commands(run, done, xmore):
    asked = xmore("sql", done.name, "--results", done.config.results, "--format", "csv",
                  "from leaderboard order by all")  # fmt: skip
    lines = asked.stdout.splitlines()
    table = run.sql("from leaderboard order by all")
    assert lines[0].replace('"', "").split(",") == table.column_names
    assert len(lines) - 1 == len(table) == len(run.leaderboard())
    assert {"clip", "xmore"} <= set(run.leaderboard()["method"].to_pylist())
    assert len(run.leaderboard(oracle=True)) >= len(run.leaderboard())
    assert run.predictions()["correct"].type == "bool" and len(run.comparisons())
    assert (run.name, run.path.name, run.config["name"]) == (done.name, done.name, "tiny")


def test_a_query_can_neither_write_nor_be_empty(run, tmp_path):
    for query, says in (
        (f"copy (select 1) to '{tmp_path}/x.csv'", "read-only"),
        ("", "empty"),
        ("select nothing from leaderboard", "nothing"),
    ):
        with pytest.raises(QueryError, match=says):
            run.sql(query)
    assert not list(tmp_path.iterdir())


def test_a_query_is_explained_with_pictures(run):
    found = run.explain(3)
    assert (found.query_id, len(found.captions)) == (3, 8) and found.answers
    shown = found._repr_html_()
    assert shown.startswith("<iframe sandbox ") and shown.count("data:image/webp") == 9
    assert "<script" not in shown and len(repr(found)) < 200 and found.uri in repr(found)
    with pytest.raises(QueryError, match="no query 'x'"):
        run.explain("x")


def test_a_notebook_shows_a_runs_leaderboard(run, monkeypatch):
    shown = run._repr_html_()
    assert shown.count("<table>") == 1 and "xmore minmax" in shown and run.name in shown
    monkeypatch.setitem(run.run.snapshot, "name", "<script>")
    assert "<script>" not in run._repr_html_()


def test_an_unfinished_run_is_not_opened(tmp_path):
    with pytest.raises(RunError, match=r"(?i)no run"):
        api.open_run("latest", tmp_path)


def test_a_benchmark_is_run_from_a_file_or_its_content(done, done_again, tmp_path, encoded):
    content = done_again.model_dump(mode="json", exclude_unset=True)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    first, second = api.benchmark(tmp_path / "a.yaml"), api.benchmark(content)
    assert first.name == second.name != done.name and encoded == {"texts": 0, "images": 0}
    assert api.benchmark(done_again, again=True).name != first.name
    with pytest.raises(ConfigError, match=r"config: .*nothing"):
        api.benchmark(content | {"nothing": 1})


def test_a_memory_is_indexed_again(world, tmp_path):
    config = world.memory_config(world.root / "captions.parquet", memory=tmp_path / "m")
    done = api.reindex(config)
    assert done.snapshot.rows == done.added > 0
    assert api.reindex(config.model_dump(mode="json", exclude_unset=True)).skipped


def test_one_image_is_classified_as_by_the_command(done, photo, xmore, caplog):
    config = done.config
    labels = ["a cat", "a dog"]
    found = api.classify(photo, labels, config)
    assert "no effect" not in caplog.text  # an image alone is no retrieval dataset
    assert {answer.answer for answer in found.answers} <= set(labels)
    assert found.page.count("data:image/webp") == 9
    as_run = api.classify(photo, run=done.name, results=config.results)
    asked = xmore("classify", photo, "--run", done.name, "--results", config.results)
    for answer in as_run.answers:
        assert f"{answer.probability:.3f}" in asked.stdout
    for wrong in (["one"], ["same", "same"], None, "one,other"):
        with pytest.raises(ConfigError):
            api.classify(photo, wrong, config)


def test_a_memory_is_searched_by_an_image(done, world, photo):
    found = api.search(done.config.memory, photo, 5, done.config)
    rows = found.rows.to_pylist()
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["similarity"] for row in rows] == sorted(
        (row["similarity"] for row in rows), reverse=True
    )
    assert found._repr_html_().count("data:image/webp") == len(found.pictures) == 5
    with pytest.raises(ConfigError, match="at least 1"):
        api.search(done.config.memory, photo, 0, done.config)
