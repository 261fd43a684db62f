"""Runs by their names."""

import shutil

from xmore.config.benchmark import BenchmarkConfig
from xmore.results.runs import all_runs, load_run, start_run


def test_an_exact_name_is_taken_before_a_longer_one(tmp_path):
    roles = {"inference": ["RN50/openai"], "coarse": "RN50/openai", "fine": "RN50/openai"}
    values = {"datasets": ["x"], "memory": tmp_path, "roles": roles, "results": tmp_path}
    snapshot = {"name": "s", "digest": "d", "memory": "m"}
    run = start_run(BenchmarkConfig.model_validate(values), snapshot)
    shutil.copytree(run.path, run.path.with_name(f"{run.name}-2"))  # of the same second
    assert [one.name for one in all_runs(tmp_path)] == [run.name, f"{run.name}-2"]
    assert load_run(tmp_path, run.name).name == run.name
    assert load_run(tmp_path, run.name[:-1]).name == f"{run.name}-2"  # the newest that begins so
