"""Where things lie: folders that look like patterns, and results that were moved."""

import json
import shutil

import duckdb
import pytest
import yaml
from sharing import unsealed

from xmore.results.runs import load_run

ODD = "[exp1] a*b it's"


@pytest.fixture
def moved(done, tmp_path):
    """The results of `done` in another folder."""
    return shutil.copytree(done.config.results, tmp_path / ODD)


def test_a_memory_and_results_in_a_folder_that_looks_like_a_pattern(world, xmore, tmp_path):
    home = tmp_path / ODD
    home.mkdir()
    (tmp_path / "[exp1] acb it's").mkdir()  # which the name matches, read as a pattern
    memory = world.memory_config(memory=home / "memory")
    (home / "memory.yaml").write_text(yaml.safe_dump(memory.model_dump(mode="json")))
    answer = xmore("reindex", home / "memory.yaml")
    assert answer.returncode == 0 and "240 rows" in answer.stdout, answer
    config = world.config(home / "results", memory=home / "memory", adjustments=["none"])
    (home / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    for command in (["benchmark", home / "run.yaml"], ["report", "latest"], ["leaks", "latest"]):
        where = [] if command[0] == "benchmark" else ["--results", home / "results"]
        answer = xmore(*command, *where)
        assert answer.returncode == 0, answer
    for command in ("verify", "list", "plan", "gc"):
        target = home / ("memory.yaml" if command == "plan" else "memory")
        answer = xmore("memory", command, target)
        assert answer.returncode == 0, answer


def test_a_question_mark_in_a_memorys_path_is_refused(world, xmore, tmp_path):
    config = world.memory_config(memory=tmp_path / "why?" / "memory").model_dump(mode="json")
    (tmp_path / "memory.yaml").write_text(yaml.safe_dump(config))
    answer = xmore("reindex", tmp_path / "memory.yaml")
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1 and "`?`" in answer.stderr


def test_urls_are_downloaded_in_such_a_folder(world, web_server, xmore, tmp_path):
    home = tmp_path / ODD
    home.mkdir()
    urls = web_server.url_list(home / "urls [1].parquet", rows=12)
    config = world.url_config(urls, home / "memory").model_dump(mode="json")
    (home / "memory.yaml").write_text(yaml.safe_dump(config))
    answer = xmore("reindex", home / "memory.yaml")
    assert answer.returncode == 0 and "12 rows, index" in answer.stdout, answer


@pytest.mark.parametrize("recorded", ["as now", "as by older versions"])
def test_moved_results_are_shown_queried_reported_and_verified(done, moved, xmore, recorded):
    path = moved / "runs" / done.name / "run.json"
    facts = json.loads(path.read_text())
    places = [ref["path"] for ref in facts["artifacts"]]
    assert all(place.startswith("store/") for place in places)
    if recorded != "as now":
        for ref in facts["artifacts"]:
            ref["path"] = f"/somewhere/else/{ref['path']}"
        facts["config"]["results"] = "/somewhere/else"
        path.write_text(json.dumps(unsealed(facts)))
    query = "select count(*) as n from predictions"
    for command in (["show"], ["sql", query], ["report"], ["leaks"], ["verify"]):
        answer = xmore(command[0], "latest", *command[1:], "--results", moved)
        assert answer.returncode == 0, answer
    assert load_run(moved, "latest").artifacts[0].path.startswith(str(moved))


def test_views_are_written_again_for_another_place(done, moved, xmore):
    views = moved / "runs" / done.name / "views.sql"
    assert str(done.config.results) in views.read_text()
    show = ("show", done.name, "--results", moved)
    advice = f"as these results were moved: xmore sql {done.name} --write-views --results "
    assert advice in xmore(*show).stdout
    answer = xmore("sql", done.name, "--write-views", "--results", moved.name, cwd=moved.parent)
    assert answer.stdout.strip() == str(views)
    assert f"In any DuckDB: {views}" in xmore(*show).stdout
    assert str(done.config.results) not in views.read_text()
    db = duckdb.connect()
    db.execute(views.read_text())
    query = "select count(*) from predictions, (select count(*) from runs)"
    assert db.execute(query).fetchone()[0] > 0


def test_repair_says_what_it_moved_aside(done, moved, xmore):
    artifacts = load_run(moved, "latest").artifacts
    gone, damaged = (
        next(ref.path for ref in artifacts if ref.stage == s) for s in ("scores", "captions")
    )
    shutil.rmtree(gone)
    with open(f"{damaged}/part-00000.parquet", "ab") as stream:
        stream.write(b"x")
    answer = xmore("verify", "latest", "--repair", "--results", moved)
    said = [line for line in answer.stdout.splitlines() if line.startswith("moved aside: ")]
    assert said == [f"moved aside: {damaged}.broken-1"] and answer.returncode == 1
    assert gone in answer.stdout


def test_a_tilde_is_the_users_home(world, xmore, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(world.root / "queries", home / "images")
    monkeypatch.setenv("HOME", str(home))
    names = sorted(path.name for path in (home / "images").iterdir())
    (home / "names.txt").write_text("".join(f"{name}\ta {name}\n" for name in names))
    card = tmp_path / "card.yaml"
    card.write_text("name: tiny\nroot: ~/images\nclasses: ~/names.txt\n")
    config = world.config(tmp_path).model_dump(mode="json", exclude_none=True)
    config |= {"datasets": ["~/card.yaml"], "results": "~/results"}
    shutil.copy(card, home / "card.yaml")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert "5 classes, 20 test images" in xmore("datasets", "check", "~/card.yaml").stdout
    assert xmore("benchmark", "~/../run.yaml").returncode == 0
    assert xmore("runs", "--results=~/results").stdout.count("tiny-") == 1
