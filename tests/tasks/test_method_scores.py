"""Methods that score classes by themselves, through the whole benchmark."""

import json
from pathlib import Path

import numpy as np
import pytest

from flows.benchmark import xmore_benchmark
from flows.cli.terminal.runs import show_run
from xmore.config.benchmark import BenchmarkConfig
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.store.artifacts import read_rows
from xmore.store.checks import read_manifest

OWN = ["calip", "confident-views", "tpt", "zero"]
OF_VIEWS = OWN[1:]
JOINED = ["caption-ensemble", "equal", "xmore"]
VIEWS = {"views": {"count": 6, "keep": 0.4, "limit": 8}}


def changed(config: BenchmarkConfig, **changes) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate(config.model_dump(mode="json") | changes)


@pytest.fixture(scope="module")
def config(done_again):
    return changed(done_again, methods=["clip", *OWN, *JOINED], options=VIEWS)


@pytest.fixture(scope="module")
def run(config):
    return load_run(config.results, xmore_benchmark.fn(config))


def rows_of(run, stage, method):
    for ref in run.artifacts:
        if ref.stage == stage:
            table = read_rows(ref)
            if table["method"][0].as_py() == method:
                return table
    raise KeyError(method)


def test_each_says_a_distribution_and_is_believed(run):
    for method in OWN:
        scores = rows_of(run, "method_scores", method)
        said = rows_of(run, "predictions", method)
        distribution = np.array(scores["class_scores"].to_pylist())
        assert distribution.shape == (8 if method != "calip" else 20, 5)
        np.testing.assert_allclose(distribution.sum(1), 1, atol=1e-6)
        assert said["query_id"].to_pylist() == scores["query_id"].to_pylist()
        assert said["prediction"].to_pylist() == distribution.argmax(1).tolist()
        np.testing.assert_array_equal(said["probability"], distribution.max(1))
        assert said["image_weight"].null_count == len(said)


def test_a_limited_method_is_compared_on_its_own_queries(run):
    db = open_views(run)
    counts = dict(db.execute("select method, n from metrics").fetchall())
    assert counts == dict.fromkeys(["clip", *OWN, *JOINED], 20) | dict.fromkeys(OF_VIEWS, 8)
    answers = db.execute("select method, query_id, correct from predictions").fetchall()
    right = {(method, query): correct for method, query, correct in answers}
    drawn = sorted(query for method, query in right if method == "tpt")
    n, difference = db.execute(
        "select n, difference from comparisons where method = 'tpt' and baseline = 'clip'"
    ).fetchone()
    mean = np.mean([right["tpt", query] - right["clip", query] for query in drawn])
    assert n == 8 and difference == pytest.approx(mean)


def test_every_hyper_parameter_says_where_it_comes_from(run):
    rows = open_views(run).execute("select method, hyperparameters from metrics").fetchall()
    settings = {method: json.loads(text) for method, text in rows}
    assert settings["calip"]["beta2"] == {"value": 1.0, "source": "fixed"}
    assert settings["tpt"]["learning_rate"] == {"value": 0.005, "source": "paper"}
    assert settings["tpt"]["count"] == {"value": 6, "source": "fixed"}
    assert settings["xmore"]["K"] == {"value": 24, "source": "fixed"}
    assert settings["clip"] == {}


def test_the_leaderboard_has_costs_and_hides_what_has_seen_labels(run, config, tmp_path, capsys):
    card = tmp_path / "eurosat.yaml"  # a name with published betas
    root = Path(config.datasets[0]).with_name("queries")
    card.write_text(f"name: eurosat\nroot: {root}\n")
    results = str(tmp_path / "results")
    methods = ["clip", "calip-oracle"]
    other = changed(config, datasets=[str(card)], methods=methods, results=results)
    oracle = load_run(other.results, xmore_benchmark.fn(other))
    db = open_views(oracle)
    rows = db.execute("select method, seconds_per_image, peak_memory_mb from leaderboard_all")
    assert all(seconds > 0 and peak > 100 for _, seconds, peak in rows.fetchall())
    assert db.execute("select method from leaderboard").fetchall() == [("clip",)]
    for wanted in (False, True):
        show_run(other.results, oracle.name, wanted)
        printed = capsys.readouterr().out
        assert ("beta2 6.08" in printed) == wanted
        assert ("seen test labels: calip-oracle" in printed) != wanted


def test_each_set_of_views_is_embedded_once(run, config, tmp_path, encoded):
    """ZERO's views are crops alone; TPT's have AugMix, but not on the ImageNets."""
    rows = {}
    for ref in run.artifacts:
        if ref.stage == "view_embeddings":
            rows[read_manifest(Path(ref.path))["params"]["augmix"]] = read_rows(ref)
    assert sorted(rows) == [False, True]
    assert rows[0]["query_id"].equals(rows[1]["query_id"]), "of the same images"
    same = [
        a == b
        for a, b in zip(
            rows[0]["embedding"].to_pylist(), rows[1]["embedding"].to_pylist(), strict=True
        )
    ]
    assert same == [view == 0 for view in rows[0]["view"].to_pylist()]
    told = "select distinct augmix, view_count from view_embeddings order by all"
    assert open_views(run).execute(told).fetchall() == [(False, 6), (True, 6)]

    card = tmp_path / "imagenet-x.yaml"
    root = Path(config.datasets[0]).with_name("queries")
    card.write_text(f"name: imagenet-x\nroot: {root}\n")
    methods, results = ["clip", *OF_VIEWS], str(tmp_path / "results")
    alike = changed(config, datasets=[str(card)], methods=methods, results=results)
    other = load_run(alike.results, xmore_benchmark.fn(alike))
    (shared,) = (ref for ref in other.artifacts if ref.stage == "view_embeddings")
    assert read_rows(shared).equals(rows[0]), "whichever methods run, on whatever dataset"
    inputs = {
        read_manifest(Path(ref.path))["params"]["method"][0]: read_manifest(Path(ref.path))[
            "inputs"
        ]
        for ref in other.artifacts
        if ref.stage == "method_scores"
    }
    assert {method for method in inputs if shared.digest in inputs[method]} == set(OF_VIEWS)


def test_a_second_run_does_nothing_and_another_limit_nothing_but_its_views(run, config, encoded):
    again = load_run(config.results, xmore_benchmark.fn(config, again=True))
    assert all(ref.skipped for ref in again.artifacts)
    assert encoded == {"texts": 0, "images": 0}
    more = changed(config, options={"views": VIEWS["views"] | {"keep": 0.9}})
    other = load_run(config.results, xmore_benchmark.fn(more))
    made = {ref.stage for ref in other.artifacts if not ref.skipped}
    assert made == {"method_scores", "predictions", "metrics", "comparisons"}
    assert encoded["images"] == 0  # the views are there


def test_shuffled_labels_change_no_prediction(run, config, unmoved):
    unmoved(run, config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "stage"),
    [("tpt", "view_embeddings"), ("tpt", "method_scores"), ("zero", "method_scores")],
)
def test_killed_in_the_middle_the_next_run_goes_on(done, tmp_path, starter, method, stage):
    config = changed(
        done.config, results=str(tmp_path / "results"), methods=[method], options=VIEWS,
        execution={"workers": 1, "part_rows": 1},  # many parts: time to be killed in
    )  # fmt: skip
    partial = tmp_path / "results" / "store" / stage / "tiny"

    assert starter.run("benchmark", config, kill_when=starter.partly(partial)) == "killed"
    (first,) = partial.glob("*.partial/part-00000.parquet")
    node = first.stat().st_ino
    assert starter.run("benchmark", config) == "0"
    (whole,) = partial.glob("*/part-00000.parquet")
    assert whole.stat().st_ino == node and len(list(whole.parent.glob("part-*"))) > 1
    undisturbed = changed(config, results=str(tmp_path / "undisturbed"))
    assert starter.run("benchmark", undisturbed) == "0"
    scores = [
        read_rows(ref)
        for one in (config, undisturbed)
        for ref in load_run(one.results, "latest").artifacts
        if ref.stage == "method_scores"
    ]
    assert scores[0].equals(scores[1])
