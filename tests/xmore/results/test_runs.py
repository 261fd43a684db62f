"""Runs by their names."""

import shutil

import pytest

from xmore.config.benchmark import BenchmarkConfig
from xmore.files.errors import RunError
from xmore.files.locks import locked
from xmore.results.runs import all_runs, load_run, start_run


def begin(results, **more):
    roles = {"inference": ["RN50/openai"], "coarse": "RN50/openai", "fine": "RN50/openai"}
    values = {"datasets": ["x"], "memory": results, "roles": roles, "results": results} | more
    snapshot = {"name": "s", "digest": "d", "memory": "m"}
    return start_run(BenchmarkConfig.model_validate(values), snapshot)


def test_what_killed_runs_left_is_cleared_and_no_living_ones_files(tmp_path):
    run = begin(tmp_path)
    for name in ("empty", "half", run.name):
        (tmp_path / "runs" / name).mkdir(exist_ok=True)
    (tmp_path / "runs" / "half" / ".run.json.1.tmp").touch()
    (run.path / ".run.json.1.tmp").touch()
    with locked(run.path / "run.lock"):
        other = begin(tmp_path)
        assert (run.path / ".run.json.1.tmp").exists()
    begin(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
    kept = {path.name for path in (tmp_path / "runs").glob("[!.]*")}
    assert len(kept) == 3 and {run.name, other.name} < kept


def test_an_exact_name_is_taken_before_a_longer_one(tmp_path):
    run = begin(tmp_path)
    shutil.copytree(run.path, run.path.with_name(f"{run.name}-2"))  # of the same second
    assert [one.name for one in all_runs(tmp_path)] == [run.name, f"{run.name}-2"]
    assert load_run(tmp_path, run.name).name == run.name
    assert load_run(tmp_path, run.name[:-1]).name == f"{run.name}-2"  # the newest that begins so


@pytest.mark.parametrize("typed, meant", [("lates", "latest"), ("myfotos", "myphotos")])
def test_a_misspelt_name_is_answered_with_the_nearest(tmp_path, typed, meant):
    begin(tmp_path, name="myphotos")
    with pytest.raises(RunError, match=f"no run `{typed}` .* Did you mean `{meant}`\\?"):
        load_run(tmp_path, typed)
    with pytest.raises(RunError, match=r"/runs\. `xmore runs` lists them"):
        load_run(tmp_path, "other")
