import dataclasses
import importlib
import inspect
import json
import pkgutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xmore.methods.registry
from xmore.methods.adjust import ADJUSTMENTS
from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    Scores,
    ScoringContext,
    Stream,
    Variant,
    Weights,
)
from xmore.methods.registry import METHODS

CASES = json.loads((Path(__file__).parents[2] / "cases" / "methods.json").read_text())


def golden(name):
    def label(case):
        return f"{case['method']}: {case['why'][:40]}"

    return pytest.mark.parametrize("case", CASES[name], ids=label)


def array(values, dtype=np.float64):
    return np.array(values, dtype)  # null -> NaN


def test_which_methods_need_what_a_run_retrieves():
    assert {name for name, method in METHODS.items() if method.needs_memory} == {
        *("caption-ensemble", "coder-captions", "equal"),
        *("xmore", "xmore-similar", "xmore-agreeing", "xmore-product"),
        *("tip-x", "ra-tta"),
    }


@golden("class_scores")
def test_class_scores(case):
    scores = Scores(array(case["image"], np.float32), array(case["text"], np.float32))
    weights = case["weights"]
    if weights is not None:
        weights = Weights(array(weights["image"]), array(weights["text"]))
    got = METHODS[case["method"]].class_scores(scores, weights)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, array(case["expected"]))  # all are exact in binary
    for row, prediction in zip(got, case["prediction"], strict=True):
        assert np.isnan(row).all() if prediction is None else row.argmax() == prediction


@golden("weights")
def test_weights(case):
    stream = Stream(array(case["image_confidence"]), array(case["text_confidence"]))
    got = METHODS[case["method"]].weights(stream, Variant(case["adjustment"]))
    np.testing.assert_array_equal(got.image, array(case["image"]))
    np.testing.assert_array_equal(got.text, array(case["text"]))
    assert got.step is None, "no order plays a part"


def test_methods_without_weights():
    stream = Stream(np.array([0.5]), np.array([0.5]))
    assert METHODS["clip"].weights(stream, Variant()) is None
    assert METHODS["caption-ensemble"].weights(stream, Variant()) is None


@pytest.mark.parametrize("method", ["equal", "xmore"])
@given(st.tuples(*[st.floats(0, 1)] * 2), st.lists(st.floats(0, 1, width=32), min_size=6))
def test_the_order_of_float_operations(method, weights, numbers):
    half = len(numbers) // 2
    image, text = numbers[:half], numbers[half : 2 * half]
    w_image, w_text = weights if any(weights) else (0.5, 0.5)
    expected = [
        (w_image * i + w_text * t) / (w_image + w_text) for i, t in zip(image, text, strict=True)
    ]
    got = METHODS[method].class_scores(
        Scores(array([image], np.float32), array([text], np.float32)),
        Weights(array([weights[0]]), array([weights[1]])),
    )
    np.testing.assert_array_equal(got, [expected])


@pytest.mark.parametrize("seed", [0, 3])
def test_xmore_walks_the_stream_in_the_seeds_order(seed):
    rng = np.random.default_rng(1)
    stream = Stream(rng.random(40), np.where(rng.random(40) < 0.3, np.nan, rng.random(40)))
    got = METHODS["xmore"].weights(stream, Variant("minmax", seed))
    seen_image, seen_text = [], []
    for step, query in enumerate(np.random.default_rng(seed).permutation(40), start=1):
        expected = [1.0, 0.0]
        image, text = stream.image_confidence[query], stream.text_confidence[query]
        seen_image.append(image)  # also that of a query without captions
        if not np.isnan(text):
            seen_text.append(text)
            expected = [
                0.5 if max(seen) == min(seen) else (c - min(seen)) / (max(seen) - min(seen))
                for c, seen in ((image, seen_image), (text, seen_text))
            ]
        assert [got.image[query], got.text[query]] == expected
        assert got.step[query] == step


def test_weights_of_a_shard():
    whole = Weights(np.arange(4.0), np.arange(4.0) + 10, np.arange(4) + 1)
    part = whole.rows(1, 3)
    assert (part.image.tolist(), part.text.tolist(), part.step.tolist()) == (
        [1, 2],
        [11, 12],
        [2, 3],
    )
    assert Weights(np.arange(4.0), np.arange(4.0)).rows(1, 3).step is None


def test_variants():
    names, seeds = ["none", "minmax", "global", "running-sum"], [5, 6]
    assert METHODS["xmore"].variants(names, seeds) == [
        Variant("none"),
        Variant("minmax", 5),
        Variant("minmax", 6),
        Variant("global"),
        Variant("running-sum", 5),
        Variant("running-sum", 6),
    ]
    for name in ("clip", "caption-ensemble", "equal"):
        assert METHODS[name].variants(names, seeds) == [Variant()]


def test_every_module_registers_a_method_under_its_own_name():
    found = pkgutil.walk_packages(xmore.methods.__path__, "xmore.methods.")
    modules = [importlib.import_module(module.name) for module in found]
    methods = [module.METHOD for module in modules if hasattr(module, "METHOD")]
    assert {id(method) for method in METHODS.values()} == {id(method) for method in methods}
    assert [method.name for method in METHODS.values()] == list(METHODS)
    assert len(METHODS) == len(methods) >= 12


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_declares_what_it_needs_and_never_receives_a_label(method):
    own = {"query_embeddings", "pixels", "view_embeddings", "captions", "leaks"}
    assert method.needs
    assert method.needs <= (own if isinstance(method, Scorer) else {"image_scores", "text_scores"})
    received = [
        *(p for f in ("variants", "weights", "class_scores")
          for p in inspect.signature(getattr(method, f)).parameters),
        *(field.name for kind in (Scores, Stream, Variant, Weights, MethodRequest, ScoringContext,
                                  QueryShard)
          for field in dataclasses.fields(kind)),
    ]  # fmt: skip
    assert not [name for name in received if "label" in name or "target" in name]
    assert sorted(inspect.signature(method.class_scores).parameters) == ["scores", "weights"]
    assert sorted(inspect.signature(method.weights).parameters) == ["stream", "variant"]


def test_adjustments_are_those_of_the_method():
    assert set(ADJUSTMENTS) == {"minmax", "running-sum", "global", "none"}
