"""What the terminal shows: tables that fit it, the same as JSON, which run, and help."""

import json
import logging
import re
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from sharing import free_port, unsealed

from flows.cli import main, services
from flows.cli.terminal import console
from flows.cli.terminal.memory import show_difference, show_freed
from flows.cli.terminal.runs import show_runs
from flows.reindex import Reindexed, summary
from flows.upkeep import Difference
from index_build.upkeep.gc import Freed
from xmore.report.table import Table, records
from xmore.results.runs import load_run
from xmore.results.views import open_views

ROOT = Path(__file__).parents[3]


@pytest.fixture
def ask(done, world, xmore, monkeypatch):
    """A command about `done`, or about the world's memory, in a terminal of so many columns."""

    def run(line: str, columns: int | None = None):
        if columns:
            monkeypatch.setenv("COLUMNS", str(columns))
        known = {"run": done.name, "memory": world.root / "memory"}
        known["results"] = done.config.results
        words = [part.format(**known).replace("+", " ") for part in line.split()]
        own = words[0] not in ("memory", "datasets")
        answer = xmore(*words, *(("--results", done.config.results) if own else ()))
        assert answer.returncode == 0, answer
        return answer

    return run


TABLES = {  # a command -> the tables of its JSON
    "runs": {"runs"},
    "runs gc --dry-run": {"unused"},
    "show {run}": {"leaderboard", "averages", "hyperparameters", "stages"},
    "sql {run} from+leaderboard": {"rows"},
    "compare {run} {run}": {"config", "flips", "examples"},
    "explain {run} 7": {"query", "scores", "captions", "predictions"},
    "leaks {run}": {"leaks", "pairs", "accuracies"},
    "memory list {memory}": {"snapshots"},
    "memory show {memory}": {"snapshot", "absent"},
    "memory takedown list {memory}": {"takedowns"},
    "memory takedown traces {memory} --results {results}": {"traces"},
    "memory verify {memory}": {"damaged", "absent", "moved", "aside", "repaired", "read"},
    "memory verify {memory} --all": {"damaged", "absent", "moved", "aside", "repaired", "read"},
    "verify {run}": {"damaged", "absent", "moved", "aside", "repaired", "read"},
    "datasets list": {"datasets"},
}


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_table_is_never_wider_than_the_terminal(ask, columns):
    for command in TABLES:
        lines = ask(command, columns).stdout.splitlines()
        for rule in (i for i, line in enumerate(lines) if "──" in line):
            rows = [lines[rule - 1], lines[rule]]
            for line in lines[rule + 1 :]:
                if not line.strip():
                    break
                rows.append(line)
            assert max(map(len, rows)) <= columns, (command, rows)


def test_80_columns_have_room_for_the_numbers_that_matter(ask, done):
    shown = ask("show {run}", 80).stdout
    found = open_views(load_run(done.config.results, done.name)).execute(
        "select method || coalesce(' ' || adjustment, ''), round(100 * top1, 1) from leaderboard"
    )
    for name, top1 in found.fetchall():
        assert re.search(rf"^ ?{name} .* {top1:.1f} ± \d", shown, re.M), name
    head = next(line for line in shown.splitlines() if line.strip().startswith("method"))
    assert head.split() == ["method", "M", "n", "top-1", "%", "to", "clip", "p"]
    assert f"xmore show {done.name} --all-columns" in shown and "duckdb -init" not in shown
    wide = ask("show {run} --all-columns", 120).stdout
    assert "± seeds" in wide and "s / image" in wide and "--all-columns" not in wide


def test_all_columns_of_a_query_are_shown_in_blocks(ask, done):
    (command,) = re.findall(r"xmore (sql .*)", ask("show {run}").stdout)
    assert command.startswith(f'sql {done.name} "from leaderboard"')
    shown = ask("sql {run} from+leaderboard", 80).stdout
    heads = [line.split() for line, rule in pairwise(shown.splitlines()) if "──" in rule]
    db = open_views(load_run(done.config.results, done.name))
    named = [name for head in heads for name in head]
    assert list(dict.fromkeys(named)) == db.sql("from leaderboard").columns
    assert all(head[:3] == ["dataset", "model", "method"] for head in heads)
    assert "top1" in heads[0] and len(heads) > 1
    assert ask("sql {run} from+leaderboard", 1000).stdout.count("──") > 0


def test_texts_fold_and_numbers_do_not(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("a long text that has to be folded " + "q" * 50, 123456.0, -0.0004)]
    columns = [("text", "text"), ("number", "count"), ("gain", "points")]
    console.show_table(Table("t", "", "", columns, rows))
    shown = capsys.readouterr().out
    assert "123,456" in shown and "+0.0" in shown and shown.count("q") == 50
    assert max(map(len, shown.splitlines())) <= 40


def test_a_time_is_to_the_minute_and_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(console, "width", lambda: 40)
    when = ("a run of a long name", "2026-01-31T12:00:59+00:00", None)
    columns = [("run", "name"), ("started", "time"), ("seeds", "figure")]
    console.show_table(Table("t", "", "", columns, [when, when]).filled())
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert (
        rows.count(["2026-01-31", "12:00", "UTC"])
        + rows.count(["a", "run", "of", "a", "long", "name", "2026-01-31", "12:00", "UTC"])
        == 2
    )
    assert ["seeds"] not in rows


def test_a_message_is_logged_once(caplog):
    once = main._Once()
    records = [logging.LogRecord("x", 30, "", 1, text, None, None) for text in ("a", "b", "a")]
    assert [once.filter(record) for record in records] == [True, True, False]


def test_columns_without_room_stand_below_with_the_name_of_the_row(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    columns = [("method", "name"), *((f"number {i}", "count") for i in range(5))]
    console.show_table(Table("t", "", "", columns, [("xmore minmax", *range(1000, 1005))]))
    shown = capsys.readouterr().out
    rules = [line for line in shown.splitlines() if "──" in line]
    assert len(rules) == shown.count("xmore minmax") > 1
    assert all(f"1,00{i}" in shown for i in range(5))


@pytest.mark.parametrize("command", TABLES)
def test_every_table_is_also_json(ask, command):
    tables = json.loads(ask(f"{command} --json").stdout)
    assert tables.keys() == TABLES[command]
    for rows in tables.values():
        assert all(isinstance(row, dict) for row in rows)


def test_gc_is_also_json(world, xmore, tmp_path):
    memory = shutil.copytree(world.root / "memory", tmp_path / "memory")
    tables = json.loads(xmore("memory", "gc", memory, "--dry-run", "--json").stdout)
    assert tables.keys() == {"snapshots", "freed"}
    assert [row["kept"] for row in tables["snapshots"]] == [True]
    assert tables["freed"] == [{"rows": 0, "files": 0, "bytes": 0, "deleted": False}]


def test_every_command_has_json_unless_it_prints_no_facts():
    without = {"report", "export", "texts", "up", "down", "datasets get"}
    found = dict(_walk(main._command(), ""))
    assert {name for name, command in found.items() if not _has_json(command)} == without
    told = (ROOT / "docs" / "scripts.md").read_text()
    assert not [name for name in found if name not in without and f"`xmore {name}`" not in told]


def _walk(group, path):
    for name, command in group.commands.items():
        full = f"{path} {name}".strip()
        if hasattr(command, "commands"):
            yield from _walk(command, full)
        else:
            yield full, command


def _has_json(command) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


def test_json_has_raw_numbers_and_an_error_leaves_none(ask, done, xmore):
    tables = json.loads(ask("show {run} --json").stdout)
    db = open_views(load_run(done.config.results, done.name))
    top1 = [value for (value,) in db.sql("select top1 from leaderboard").fetchall()]
    assert [row["top1"] for row in tables["leaderboard"]] == top1
    (row,) = json.loads(ask("sql {run} select+'nan'::double+as+x --json").stdout)["rows"]
    assert row == {"x": None}
    answer = xmore("show", "nothing", "--json", "--results", done.config.results)
    assert (answer.returncode, answer.stdout) == (2, "") and "error: no run" in answer.stderr


def test_rows_of_a_table_are_keyed_for_programs():
    columns = [("M", "count"), ("top-1 %", "share"), ("± seeds", "share"), ("s / image", "number")]
    (row,) = records(Table("t", "", "", columns, [(1, 0.5, 0.1, 2.0)]))
    assert list(row) == ["m", "top1", "top1_std", "seconds_per_image"]


# ----- which run


@pytest.fixture
def pets(done, tmp_path):
    """Runs of the configs `pets` and `pets-k`; the latter is the newest."""
    shutil.copytree(done.config.results, tmp_path / "results")
    old = tmp_path / "results" / "runs" / done.name
    for name in ("pets", "pets-k"):
        copy = shutil.copytree(old, old.with_name(f"{name}-2030"))
        facts = unsealed(json.loads((copy / "run.json").read_text()))
        facts["config"]["name"], facts["started"] = name, f"2030-01-0{len(name) - 3}"
        (copy / "run.json").write_text(json.dumps(facts))
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("name", "taken"),
    [("pets", "pets-2030"), ("pets-k", "pets-k-2030"), ("pets-", "pets-k-2030"), ("tiny", "tiny-")],
)
def test_a_configs_name_selects_its_newest_run_and_it_is_said(pets, xmore, name, taken):
    assert load_run(pets, name).name.startswith(taken)
    answer = xmore("sql", name, "select 1", "--results", pets)
    assert answer.stderr.startswith(f"run {taken}") and answer.stderr.count("\n") == 1


def test_a_name_in_full_is_not_repeated(pets, xmore):
    assert xmore("sql", "pets-2030", "select 1", "--results", pets).stderr == ""


# ----- words


def test_a_difference_says_how_many_rows_it_shows(capsys):
    one, other = SimpleNamespace(name="a"), SimpleNamespace(name="b")
    show_difference(
        one, other, Difference(9, (60, 2), (["x"] * 5, ["y"] * 2), 6, [("old", "new")] * 5, [])
    )
    shown = capsys.readouterr().out.splitlines()
    assert "-60 rows, 5 of them:" in shown and "+2 rows" in shown
    at = shown.index("~6 rows in both with another caption, 5 of them:")
    assert shown[at + 1 : at + 3] == ["    old", " -> new"]


def test_what_gc_frees_is_never_negative(capsys):
    show_freed(Freed({}, {}, 12, 1, -1328212), dry_run=False)
    shown = capsys.readouterr().out
    assert "on disk: 1.3 MB more, as kept snapshots still hold what was rewritten" in shown


def test_a_take_down_is_no_failure_and_what_was_not_requested_is_not_told():
    index = {"key": "Flat", "parameters": ""}
    failures = {"taken down": 1, "HTTP 404": 2}
    facts = {"rows": 537, "asked": 540, "failures": failures, "index": index}
    lines = summary(Reindexed(SimpleNamespace(manifest=facts, name="s"), embedded=500))
    assert lines[0] == "537 rows, index Flat, snapshot s (500 embedded)"
    words = [line.strip() for line in lines[1:]]
    assert words == ["2 of 540 rows failed: HTTP 404", "1 of 540 rows taken down"]
    lines = summary(Reindexed(SimpleNamespace(manifest=facts, name="s"), captions=1200))
    assert lines[0].endswith("(0 embedded)")
    assert lines[1].strip() == "1,200 captions changed, of the same images"


def test_up_says_that_the_demos_port_is_taken(monkeypatch, tmp_path, caplog):
    started = []
    monkeypatch.setattr(services, "HOME", tmp_path)
    monkeypatch.setattr(services, "_start", lambda name, *_: started.append(name))
    monkeypatch.setattr(services, "deploy", lambda *_: None)
    monkeypatch.setattr(services, "_wait_for_server", lambda *_, **__: None)
    monkeypatch.setattr(services, "_taken", lambda port: port == services.PORT)
    monkeypatch.setattr(services, "end_orphans", lambda *_: ["1 run was ended"])
    api, told = services.up(4200)
    assert api.endswith(":4200/api") and told == ["1 run was ended"]
    assert started == ["server", "worker"] and f"port {services.PORT} is taken" in caplog.text


def test_a_variable_that_up_told_to_set_is_no_server_of_another(monkeypatch):
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_API_URL", api)
    assert services._elsewhere(None, 4200) == (None, port)  # after `down`, in the same shell
    monkeypatch.setattr(services, "_taken", lambda _: True)
    assert services._elsewhere(api, 4200) == (None, port)
    assert services._elsewhere(None, 4200) == (api, 4200)
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.org/api")
    assert services._elsewhere(None, 4200) == ("https://prefect.example.org/api", 4200)
    monkeypatch.delenv("PREFECT_API_URL")
    assert services._elsewhere(None, 4200) == (None, 4200)


# ----- help


def test_help_names_the_groups_and_the_arguments(xmore, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = xmore("-h").stdout
    places = [
        shown.index(f"─ {name} ─") for name in (main.RUN, main.LOOK, main.MEMORY, main.UPKEEP)
    ]
    assert places == sorted(places)
    assert shown == xmore("--help").stdout
    assert "Usage: xmore show [OPTIONS] RUN" in xmore("show", "-h").stdout
    assert "{" not in xmore("compare", "-h").stdout.split("\n")[1]


def test_the_version_and_shell_completion(xmore, monkeypatch):
    assert re.fullmatch(r"\d+\.\d+\S*\n", xmore("--version").stdout)
    monkeypatch.setenv("_XMORE_COMPLETE", "source_bash")
    assert "_XMORE_COMPLETE=complete_bash" in xmore().stdout


def test_runs_are_listed_with_the_names_of_datasets_not_of_their_files(capsys):
    run = SimpleNamespace(name="r", started="", seconds=1.0, trial="")
    run.config, run.snapshot_name = {"datasets": ["/x/photos.yaml"]}, "s"
    run.artifacts = [SimpleNamespace(stage="queries", dataset="pets")]
    for run.status, says in (("interrupted", "photos"), ("completed", "pets")):
        show_runs([run])
        assert capsys.readouterr().out.splitlines()[3].split()[:3] == ["r", run.status, says]
