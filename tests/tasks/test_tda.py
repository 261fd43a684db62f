"""TDA through the whole benchmark: orders, parts, stops, excluded queries, labels."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tda_literal as literal

from flows.benchmark import xmore_benchmark
from flows.classify import classified
from xmore.config.benchmark import BenchmarkConfig
from xmore.methods.tda.answers import Answers
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.store.artifacts import read_rows
from xmore.store.checks import read_manifest

FIXED = (2.0, 5.0, 0.117, 1.0)
VIEWS = {"views": {"count": 5, "keep": 0.5, "limit": 9}}


def changed(config: BenchmarkConfig, **changes) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate(config.model_dump(mode="json") | changes)


@pytest.fixture(scope="module")
def config(done_again):
    methods = ["clip", "xmore", "tda", "tda-views"]
    return changed(done_again, methods=methods, adjustments=["minmax"], options=VIEWS)


@pytest.fixture(scope="module")
def run(config):
    return load_run(config.results, xmore_benchmark.fn(config))


def predictions(run, method):
    for ref in run.artifacts:
        if ref.stage == "predictions":
            rows = read_rows(ref)
            if rows["method"][0].as_py() == method:
                return rows
    raise KeyError(method)


def stored(run, stage, column, method=None):
    for ref in run.artifacts:
        if ref.stage == stage and ref.model == "lite0":
            rows = read_rows(ref)
            if method is None or rows["method"][0].as_py() == method:
                return np.array(rows[column].to_pylist(), np.float64)
    raise KeyError(stage)


def expected(run, kept, seed):
    """The literal loop over the stored embeddings, in the order of a seed -> by query."""
    images = stored(run, "query_embeddings", "embedding")
    (embedded,) = (r for r in run.artifacts if r.stage == "query_embeddings" and r.model == "lite0")
    tau = read_manifest(Path(embedded.path))["facts"]["logit_scale"]
    texts = texts_of(run, tau, images)
    order = kept[np.random.default_rng(seed).permutation(len(kept))]
    seen = [literal.one_view(images[query], texts, tau) for query in order]
    return dict(zip(order.tolist(), literal.stream(seen, FIXED), strict=True)), order


def texts_of(run, tau, images):
    """The classes' features, from the logits of the stored scores: 20 images span their space."""
    logits = np.log(stored(run, "scores", "image_scores"))
    # Up to a constant per image, which no softmax sees: centre both sides.
    centred = logits - logits.mean(1, keepdims=True)
    texts = np.linalg.lstsq(tau * images, centred, rcond=None)[0]
    return texts.T


def test_each_order_is_the_loop_over_what_is_stored(run):
    rows = predictions(run, "tda").to_pandas()
    for seed in (0, 1, 2):
        mine = rows[rows.seed == seed].set_index("query_id")
        answers, order = expected(run, np.arange(20), seed)
        assert mine.loc[order].step.tolist() == list(range(1, 21))
        for query, z in answers.items():
            p = literal.softmax(z)
            assert mine.loc[query].probability == pytest.approx(p.max(), abs=1e-5)
            assert mine.loc[query].prediction == p.argmax()
    assert rows.image_weight.isna().all() and rows.adjustment.isna().all()


def test_the_orders_are_those_of_xmore_and_have_a_deviation(run):
    steps = {
        method: predictions(run, method).select(["query_id", "seed", "step"]).to_pylist()
        for method in ("xmore", "tda")
    }
    assert steps["tda"] == steps["xmore"]
    db = open_views(run)
    query = "select method, seeds, top1_std is null, n from leaderboard where method like 'tda%'"
    assert db.execute(query).fetchall() == [("tda", 3, False, 20), ("tda-views", 3, False, 9)]
    assert {cost["method"] for cost in run.costs if cost["seconds_per_image"]} >= {"tda"}


@pytest.mark.parametrize("part_rows", [1, 7, 64])
def test_the_size_of_parts_changes_no_bit(config, run, tmp_path, part_rows):
    results = tmp_path / "results"
    execution = config.execution.model_copy(update={"part_rows": part_rows})
    other = config.model_copy(update={"results": results, "execution": execution})
    shutil.copytree(config.results / "store", results / "store", symlinks=True)
    for stage in ("predictions", "metrics", "comparisons"):  # of the same evidence
        shutil.rmtree(results / "store" / stage)
    again = load_run(results, xmore_benchmark.fn(other))
    for method in ("tda", "tda-views"):
        assert predictions(again, method).equals(predictions(run, method))


def test_stopped_in_the_middle_it_ends_with_the_same_bytes(config, run, tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(config.results / "store", results / "store")
    for stage in ("predictions", "metrics", "comparisons"):
        shutil.rmtree(results / "store" / stage)
    other = config.model_copy(update={"results": results, "methods": ["clip", "tda"]})
    calls, whole = [], Answers.__call__

    def stopping(self, *args):
        calls.append(1)
        if len(calls) == 8:  # in the third part of five
            raise KeyboardInterrupt
        return whole(self, *args)

    monkeypatch.setattr(Answers, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        xmore_benchmark.fn(other)
    assert list((results / "store").rglob("*.partial"))
    again = load_run(results, xmore_benchmark.fn(other))
    assert len(calls) == 8 + 9, "two parts of three orders were kept"
    hashes = [
        [part["sha256"] for ref in each.artifacts for part in read_manifest(Path(ref.path))["parts"]
         if ref.stage == "predictions" and predictions(each, "tda").equals(read_rows(ref))]
        for each in (run, again)
    ]  # fmt: skip
    assert hashes[0] == hashes[1] and len(hashes[0]) == 5


def test_an_excluded_query_is_in_no_cache(leaky, tmp_path):
    """Left out means: not offered, no step. The others are as in a stream without it."""
    shutil.copytree(leaky.done.config.results / "store", tmp_path / "store")
    leaks = leaky.done.config.leaks.model_copy(update={"exclude": True})
    update = {"leaks": leaks, "methods": ["clip", "tda"], "results": tmp_path}
    found = load_run(tmp_path, xmore_benchmark.fn(leaky.done.config.model_copy(update=update)))
    rows = predictions(found, "tda").to_pandas()
    kept = np.array(sorted(rows.query_id.unique()))
    assert len(kept) == 18
    answers, order = expected(found, kept, 1)
    mine = rows[rows.seed == 1].set_index("query_id")
    assert mine.loc[order].step.tolist() == list(range(1, 19))
    for query, z in answers.items():
        assert mine.loc[query].probability == pytest.approx(literal.softmax(z).max(), abs=1e-5)


def test_labels_move_no_prediction(run, config, unmoved):
    unmoved(run, config)


def test_a_single_image_is_classified_without_a_stream(config, world):
    image = min((world.root / "queries" / "bird").iterdir())
    with classified(image, ["bird", "tool"], config, None) as (found, _):
        (answer,) = (each for each in found.answers if each.method == "tda")
    assert answer.answer in ("bird", "tool")
