"""A method whose source was edited: its numbers are made anew, or the edit is told."""

import logging

import pytest

from flows.benchmark import xmore_benchmark
from xmore.methods.registry import METHODS
from xmore.methods.source import method_key, source_of
from xmore.results.compare import between
from xmore.results.runs import Run, load_run
from xmore.results.views import open_views
from xmore.store import made_by as makers

MINE = """
import numpy as np
from xmore.methods.base import Method
class Mine(Method):
    name = "mine"
    {version}
    needs = frozenset({{"image_scores"}})
    def class_scores(self, scores, weights):
        return {formula}
METHOD = Mine()
"""
FORMULAS = ("scores.image.astype(np.float64)", "1.0 - scores.image")


@pytest.fixture
def run_with(done_again, tmp_path, monkeypatch):
    """Runs the benchmark with an edited method -> whether it was reused, its top1, the run."""
    monkeypatch.setattr(makers, "_warned", set())

    def run(version: str, formula: str) -> tuple[bool, float, Run]:
        path = tmp_path / "mine.py"
        path.write_text(MINE.format(version=version, formula=formula))
        config = done_again.model_copy(update={"methods": ["clip", str(path)], "name": "mine"})
        found = load_run(config.results, xmore_benchmark.fn(config, again=True))
        *_, ref = (ref for ref in found.artifacts if ref.stage == "predictions")
        query = "select top1 from leaderboard where method = 'mine'"
        return ref.skipped, open_views(found).execute(query).fetchone()[0], found

    return run


def test_an_edit_of_a_method_without_a_version_makes_it_anew(run_with, caplog):
    first, again = run_with("", FORMULAS[0]), run_with("", FORMULAS[0])
    edited = run_with("", FORMULAS[1])
    assert not first[0] and again[:2] == (True, first[1])
    assert not edited[0] and edited[1] != first[1]
    differences = between(again[2], edited[2]).differences
    assert [key for key, *_ in differences] == ["(source of mine)"]
    assert all(told.startswith("mine.py ") for told in differences[0][1:])
    assert between(first[2], again[2]).differences == []
    assert "another version" not in caplog.text


def test_an_edit_of_a_method_with_a_version_is_told_and_reused(run_with, caplog):
    first, again = run_with("version = 7", FORMULAS[0]), run_with("version = 7", FORMULAS[0])
    assert not first[0] and again[:2] == (True, first[1]) and not caplog.text
    with caplog.at_level(logging.WARNING):
        edited = run_with("version = 7", FORMULAS[1])
    assert edited[:2] == (True, first[1])
    assert "made by another version of mine.py: it is reused; if" in caplog.text
    assert not run_with("version = 8", FORMULAS[1])[0]


def test_our_own_methods_have_the_digests_that_they_had(done):
    assert all(isinstance(method.version, int) for method in METHODS.values())
    assert method_key(METHODS["xmore"]) == ["xmore", 1]
    assert method_key(METHODS["coder-captions"]) == ["coder-captions", 2]


def test_a_source_is_all_that_holds_its_arithmetic():
    of_xmore = source_of(METHODS["xmore"])
    assert next(iter(of_xmore)) == "xmore/methods/xmore.py"
    assert {"xmore/methods/adjust.py", "xmore/methods/base.py"} < of_xmore.keys()
    assert not {"xmore/files/yaml.py", "xmore/methods/options.py"} & of_xmore.keys()
    # imported in a function, and not for type checks alone
    assert "xmore/models/spatial.py" in source_of(METHODS["calip"])
    assert "xmore/models/encoder.py" not in source_of(METHODS["clip"])
