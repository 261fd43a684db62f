"""A method from outside in a benchmark: in every command, after errors, and in Prefect's form."""

import json
from pathlib import Path

import pytest
import yaml
from prefect.utilities.schema_tools import is_valid_schema, validate

from flows.benchmark import xmore_benchmark
from flows.sweep import run_sweep
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows
from xmore.store.checks import read_manifest

MINE = """import numpy as np
from xmore.methods.base import Scorer
class Mine(Scorer):
    name = "mine"
    needs = {"query_embeddings", "captions"}
    def identity(self, request):
        return {}
    def prepare(self, context):
        classes = context.class_features
        def score(shard):
            scores = np.exp(shard.features @ classes.T)
            return scores / scores.sum(1, keepdims=True)
        return score
METHOD = Mine()
"""
WRONG = MINE.replace("scores / scores.sum(1, keepdims=True)", "scores[0]")


@pytest.fixture
def case(done_again, tmp_path):
    """A config beside `mine.py`, which it names by a relative path; commands find its runs."""
    (tmp_path / "mine.py").write_text(MINE)
    data = done_again.model_dump(mode="json", exclude_none=True)
    data |= {"name": "outside", "methods": ["./mine.py", "xmore", "clip"], "report": True}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(data))
    return path, done_again.results


def test_every_command_works_with_it_and_most_after_its_file_is_gone(case, xmore, tmp_path):
    config, results = case
    assert xmore("benchmark", config).returncode == 0
    run = load_run(results, "outside")
    assert run.config["methods"][0] == str(tmp_path / "mine.py")
    named = [read_manifest(Path(ref.path))["params"]["method"][0] for ref in run.artifacts
             if ref.stage == "predictions"]  # fmt: skip
    assert named == ["clip", "xmore", "mine"]
    (own,) = (ref for ref in run.artifacts if ref.stage == "method_scores")
    assert set(read_rows(own)["method"].to_pylist()) == {"mine"}
    assert "mine.py" in read_manifest(Path(own.path))["source"]
    at = ("--results", results)
    board = json.loads(xmore("show", run.name, *at, "--json").stdout)
    page = (run.path / "report" / "report.html").read_text()
    assert "mine" in json.dumps(board) and "mine" in page
    assert {cost["method"] for cost in run.costs} == {"clip", "xmore", "mine"}
    (tmp_path / "mine.py").rename(tmp_path / "gone.py")
    for command in ("show", "report", "verify", "sql"):
        extra = ["select method from leaderboard"] if command == "sql" else []
        answer = xmore(command, run.name, *extra, *at)
        assert answer.returncode == 0 and "mine" in answer.stdout + page, answer
    assert json.loads(xmore("show", run.name, *at, "--json").stdout) == board
    answer = xmore("benchmark", "--resume", run.name, *at)
    assert answer.returncode == 2 and "mine.py: No such file or directory" in answer.stderr


def test_an_error_in_it_stops_the_run_which_resumes_once_it_is_mended(case, xmore, tmp_path):
    config, results = case
    (tmp_path / "mine.py").write_text(WRONG)
    answer = xmore("benchmark", config, "--set", "name=wrong")
    assert answer.returncode == 2 and answer.stderr.splitlines()[-1].startswith("error: ")
    told = answer.stderr.splitlines()[-1]
    assert f"{tmp_path / 'mine.py'}, line 8, in prepare: must return an array (queries" in told
    assert load_run(results, "wrong").status == "failed"
    (tmp_path / "mine.py").write_text(MINE.replace("np.exp", "no_such"))
    answer = xmore("benchmark", "--resume", "wrong", "--results", results)
    assert (
        answer.returncode == 2
        and "mine.py, line 11, in what `prepare` returns: Name" in answer.stderr
    )
    (tmp_path / "mine.py").write_text(MINE)
    assert xmore("benchmark", "--resume", "wrong", "--results", results).returncode == 0
    assert load_run(results, "wrong").status == "completed"


@pytest.mark.usefixtures("case")
def test_a_sweep_over_methods(tmp_path):
    (tmp_path / "other.py").write_text(MINE.replace('"mine"', '"other"'))
    sweep = {
        "name": "files",
        "base": "run.yaml",
        "vary": {"methods": [["clip", "./mine.py"], ["clip", "./other.py"]]},
        "table": "select method from leaderboard where method != 'clip'",
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    table = run_sweep(tmp_path / "sweep.yaml", None, xmore_benchmark.fn)
    assert [method for *_, method in table.rows] == ["mine", "other"]


def test_the_form_offers_ours_and_takes_a_file(case):
    """Prefect's server checks a run's parameters by the flow's schema."""
    config, _ = case
    schema = xmore_benchmark.parameters.model_dump()
    is_valid_schema(schema)
    params = yaml.safe_load(config.read_text())
    assert validate({"params": params}, schema, raise_on_error=False) == []
    assert validate({"params": params | {"methods": [3]}}, schema, raise_on_error=False)
    methods = schema["definitions"]["BenchmarkConfig"]["properties"]["methods"]
    assert "xmore" in methods["items"]["anyOf"][0]["enum"]
