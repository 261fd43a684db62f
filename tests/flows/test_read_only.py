"""Memories and results that can be read and not be changed: readers do without locks."""

import json
import shutil

import pytest
from sharing import unsealed
from unprivileged import read_only

from flows.benchmark import xmore_benchmark
from xmore.files.errors import RunError
from xmore.files.locks import is_locked, locked, read_locked
from xmore.memory.locks import lock_of
from xmore.memory.snapshot import resolve_current
from xmore.report import page
from xmore.results.runs import load_run


@pytest.fixture
def memory(world, tmp_path):
    """A memory that others have read before: its locks are there."""
    copy = shutil.copytree(world.root / "memory", tmp_path / "memory")
    lock = lock_of(copy, resolve_current(copy))
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    return copy


def test_a_memory_with_locks_is_benchmarked(memory, done_again, xmore):
    config = done_again.model_copy(update={"memory": memory, "name": "read-only"})
    with read_only(memory):
        name = xmore_benchmark.fn(config)
        answer = xmore("memory", "list", memory)
    assert load_run(config.results, name).status == "completed"
    assert answer.returncode == 0 and "CURRENT" in answer.stdout, answer.stderr


@pytest.mark.parametrize("mode", [0o444, 0], ids=["readable lock", "unreadable lock"])
def test_runs_are_listed_where_one_was_interrupted(done, tmp_path, xmore, mode):
    results = shutil.copytree(done.config.results, tmp_path / "results")
    half = shutil.copytree(results / "runs" / done.name, results / "runs" / "half")
    told = json.loads((half / "run.json").read_text()) | {"finished": None}
    (half / "run.json").write_text(json.dumps(unsealed(told)))
    (half / "run.lock").chmod(mode)
    with read_only(results):
        listed = xmore("runs", "--results", results)
        shown = xmore("show", "latest", "--results", results)
        asked = xmore("sql", "half", "select count(*) from queries", "--results", results)
    assert listed.returncode == 0 and "interrupted" in listed.stdout, listed.stderr
    assert shown.returncode == asked.returncode == 0, shown.stderr + asked.stderr


def test_a_report_that_cannot_be_written_is_told_before_it_is_drawn(done, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "open_views", lambda _: pytest.fail("it is drawn"))
    results = shutil.copytree(done.config.results, tmp_path / "results")
    run = load_run(results, done.name)
    advice = rf"Permission denied\)\. Name another folder: `xmore report {run.name} --output FOLDER"
    with read_only(results), pytest.raises(RunError, match=advice):
        page.write_report(run, run.path / "report")


@pytest.mark.parametrize(
    "arguments",
    [
        ["classify", "nowhere.jpg", "--labels", "a,b", "--html"],
        ["explain", "RUN", "no such query", "--html"],
        ["texts", "nowhere.yaml", "--out"],
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_the_work(done, tmp_path, xmore, arguments):
    where = [] if arguments[0] == "texts" else ["--results", done.config.results]
    named = [done.name if part == "RUN" else part for part in arguments]
    (tmp_path / "of others").mkdir()
    with read_only(tmp_path / "of others"):
        answer = xmore(*named, tmp_path / "of others" / "x.html", *where)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer
    assert (
        f"{tmp_path / 'of others' / 'x.html'}: Permission denied. Make it writable" in answer.stderr
    )


def test_a_reader_shares_its_lock_where_it_can(tmp_path):
    path = tmp_path / "a" / "x.lock"
    with read_locked(path), read_locked(path):
        assert is_locked(path)
    with read_only(tmp_path), read_locked(path):
        assert is_locked(path)  # even one that it may only read
    assert not is_locked(path)
    shutil.rmtree(tmp_path / "a")
    with read_only(tmp_path), read_locked(path):
        assert not path.exists() and not is_locked(path)
    with locked(path):
        assert is_locked(path)
