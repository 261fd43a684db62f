"""The results folder: where it is, what a second run adds, and how runs are removed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from sharing import unsealed

from flows import benchmark
from flows.benchmark import xmore_benchmark
from xmore.files.errors import LockedError, RunError
from xmore.files.locks import locked, read_locked
from xmore.files.paths import PROJECT_ROOT, RESULTS
from xmore.results.removal import collect, remove_run, unused
from xmore.results.runs import all_runs, gc_lock, load_run


def test_nothing_tracked_is_needed_in_the_results_folder():
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert listed.stdout.split() in (["results/README.md"], [])  # nothing, without git
    for path in ("xmore", "flows", "tasks", "index_build"):
        for module in (PROJECT_ROOT / path).rglob("*.py"):
            text = module.read_text()
            assert module.name == "paths.py" or 'ROOT / "results"' not in text, module
    assert RESULTS == PROJECT_ROOT / "results"


@pytest.fixture
def config(done, tmp_path):
    shutil.copytree(done.config.results / "store", tmp_path / "results" / "store")
    return done.config.model_copy(update={"results": tmp_path / "results"})


def test_a_second_identical_run_adds_nothing_unless_asked(config, world):
    first = xmore_benchmark.fn(config)
    assert xmore_benchmark.fn(config) == first
    how = config.model_copy(
        update={"execution": config.execution.model_copy(update={"part_rows": 9})}
    )
    assert xmore_benchmark.fn(how) == first
    assert [run.name for run in all_runs(config.results)] == [first]
    again = xmore_benchmark.fn(config, again=True)
    assert again != first and len(all_runs(config.results)) == 2
    assert xmore_benchmark.fn(config) == again  # the newest of those that have it all
    other = xmore_benchmark.fn(config.model_copy(update={"name": "other"}))
    assert other.startswith("other-") and len(all_runs(config.results)) == 3
    # An older run.json lacks the newer keys.
    shutil.rmtree(config.results / "runs" / again)
    path = config.results / "runs" / first / "run.json"
    data = unsealed(json.loads(path.read_text()))
    del data["code"], data["config"]["limit"]
    path.write_text(json.dumps(data))
    assert xmore_benchmark.fn(config) == first and load_run(config.results, first).code == {}


def test_changed_images_are_another_run(config, world, tmp_path):
    shutil.copytree(world.root / "queries", tmp_path / "queries")
    (tmp_path / "tiny.yaml").write_text("name: tiny\nroot: queries\n")
    config = config.model_copy(update={"datasets": [str(tmp_path / "tiny.yaml")]})
    first = xmore_benchmark.fn(config)
    next((tmp_path / "queries" / "bird").iterdir()).unlink()
    assert xmore_benchmark.fn(config) != first


def test_the_command_says_that_there_is_nothing_to_do(config, tmp_path, xmore):
    (tmp_path / "tiny.json").write_text(config.model_dump_json())
    first = xmore("benchmark", tmp_path / "tiny.json")
    (run,) = all_runs(config.results)
    assert first.returncode == 0 and "has it all" not in first.stdout
    second = xmore("benchmark", tmp_path / "tiny.json")
    assert second.returncode == 0
    assert f"Nothing to do: {run.name} has it all." in second.stdout
    assert xmore("benchmark", tmp_path / "tiny.json", "--again").returncode == 0
    assert len(all_runs(config.results)) == 2


def test_a_report_that_is_asked_for_later_is_drawn_once(config, monkeypatch):
    drawn = []

    def draw(run, folder):
        drawn.append(run.name)
        folder.mkdir()
        (folder / "report.html").touch()
        return folder / "report.html"

    monkeypatch.setattr("xmore.report.page.write_report", draw)
    name = xmore_benchmark.fn(config)
    for _ in range(2):
        assert xmore_benchmark.fn(config.model_copy(update={"report": True})) == name
    assert drawn == [name]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_removed_and_gc_frees_what_only_it_used(config, xmore):
    keep = load_run(config.results, xmore_benchmark.fn(config))
    before = files(config.results / "store")
    changed = config.model_copy(update={"name": "going", "seeds": [5]})
    going = load_run(config.results, xmore_benchmark.fn(changed))
    own = {ref.path for ref in going.artifacts} - {ref.path for ref in keep.artifacts}
    where = ("--results", config.results)
    answer = xmore("runs", "rm", going.name[:-1], *where)
    assert answer.returncode == 2 and "Give its whole name" in answer.stderr
    answer = xmore("runs", *where, "rm", going.name)  # the option of `runs` holds for `rm`, too
    assert answer.returncode == 0, answer.stderr
    assert f"Artifacts in no run: {len(own)} (" in answer.stdout
    assert f"xmore runs gc --results {config.results}" in answer.stdout
    assert not going.path.exists() and all(Path(path).is_dir() for path in own)
    assert (
        f"Would delete artifacts in no run: {len(own)} ("
        in xmore("runs", "gc", "--dry-run", *where).stdout
    )
    told = json.loads(xmore("runs", "--json", *where, "gc", "--dry-run", "--json").stdout)
    assert [row["artifacts"] for row in told["unused"]] == [len(own)]
    assert f"Deleted artifacts in no run: {len(own)} (" in xmore("runs", "gc", *where).stdout
    locks = {name for name in files(config.results / "store") - before}
    assert all(name.startswith(".locks/") for name in locks)
    assert files(config.results / "store") >= {n for n in before if "caption_embeddings" in n}
    assert all(Path(ref.path).is_dir() for ref in keep.artifacts)
    assert xmore("verify", keep.name, *where).returncode == 0
    told = json.loads(xmore("runs", "--json", *where, "rm", keep.name).stdout)
    assert told["removed"] == [{"run": keep.name}] and told["unused"][0]["artifacts"] > 0


@pytest.fixture
def store(tmp_path):
    """A store with an unused artifact, one that was moved aside, and a part of one."""
    for name in ("a" * 64, "b" * 64 + ".broken-1", "c" * 64 + ".partial"):
        (tmp_path / "store" / "scores" / "d" / name).mkdir(parents=True)
    for other in ("store/scores/d/notes", f"store/caption_embeddings/m/{'d' * 64}"):
        (tmp_path / other).mkdir(parents=True)
    return tmp_path


def test_what_an_unfinished_run_may_resume_is_kept(done, store):
    assert len(unused(store).paths) == 3
    half = shutil.copytree(done.config.results / "runs" / done.name, store / "runs" / "half")
    told = unsealed(json.loads((half / "run.json").read_text())) | {"finished": None}
    (half / "run.json").write_text(json.dumps(told))
    assert [path.suffix for path in collect(store).paths] == ["", ".broken-1"]
    assert sorted(path.name for path in (store / "store" / "scores" / "d").iterdir()) == [
        "c" * 64 + ".partial", "notes",
    ]  # fmt: skip
    assert (store / "store" / "caption_embeddings").is_dir()


def test_nothing_is_deleted_while_a_benchmark_runs_or_a_run_cannot_be_read(done, store):
    with read_locked(gc_lock(store)), pytest.raises(LockedError, match="a benchmark is running"):
        collect(store)
    damaged = store / "runs" / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "run.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        collect(store)
    with locked(damaged / "run.lock"), pytest.raises(LockedError, match="is running"):
        remove_run(store, "damaged")
    for name in ("", ".", "..", "../runs/damaged", "none"):
        with pytest.raises(RunError, match="no run"):
            remove_run(store, name)
    remove_run(store, "damaged")
    assert not damaged.exists() and len(collect(store).paths) == 3


def test_a_running_benchmark_holds_off_gc(config, monkeypatch):
    asked = []

    def refused(*_):
        with pytest.raises(LockedError):
            collect(config.results)
        asked.append(True)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "comparisons", refused)
    with pytest.raises(KeyboardInterrupt):
        xmore_benchmark.fn(config)
    # The artifacts of an interrupted run are used; the copied comparisons it had not reached.
    assert asked and {path.parts[-3] for path in unused(config.results).paths} == {"comparisons"}
