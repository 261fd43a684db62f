import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmore.methods.scoring import class_probabilities, confidence, mean_over_captions

CASES = json.loads((Path(__file__).parents[2] / "cases" / "scoring.json").read_text())


def golden(name):
    return pytest.mark.parametrize("case", CASES[name], ids=lambda case: case["why"][:40])


def array(rows, dtype=np.float64):
    return np.array(rows, dtype)  # null -> NaN


@golden("class_probabilities")
def test_softmax_of_scaled_inner_products(case):
    features, classes = array(case["features"], np.float32), array(case["classes"], np.float32)
    got = class_probabilities(features, classes, case["tau"])
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, array(case["expected"]), rtol=0, atol=case["atol"])


@golden("mean_over_captions")
def test_mean_of_probabilities(case):
    got = mean_over_captions(array(case["probabilities"]), array(case["which"], np.int64))
    np.testing.assert_allclose(got, array(case["expected"]), rtol=0, atol=1e-15)


@golden("confidence")
def test_confidence(case):
    got = confidence(array(case["scores"], np.float32))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, array(case["expected"]), rtol=0, atol=case["atol"])


def test_text_scores_are_not_the_softmax_of_the_mean_feature():
    """One caption says class 0 at 9 to 1, one says nothing: 0.7, where mean logits give 0.75."""
    classes = np.eye(2, dtype=np.float32)
    captions = np.array([[math.log(9), 0], [0, 0]], np.float32)
    probabilities = class_probabilities(captions, classes, 1.0)
    got = mean_over_captions(probabilities, np.array([[0, 1]]))
    np.testing.assert_allclose(got, [[0.7, 0.3]], rtol=0, atol=1e-7)


@given(st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=5))
def test_mean_equals_a_loop_however_queries_are_grouped(captions):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    which = np.full((len(captions), 4), -1)
    expected = np.full((len(captions), 3), np.nan)
    for q, kept in enumerate(captions):
        which[q, : len(kept)] = kept
        for c in range(3):
            total = 0.0
            for u in kept:
                total += float(probabilities[u, c])
            expected[q, c] = total / len(kept) if kept else np.nan
    np.testing.assert_array_equal(mean_over_captions(probabilities, which), expected)
    alone = [mean_over_captions(probabilities, which[q : q + 1]) for q in range(len(which))]
    np.testing.assert_array_equal(np.concatenate(alone), expected)


def test_confidence_reads_the_stored_float32_as_float64():
    stored = np.array([[0.7, 0.2, 0.1]], np.float32)
    p = [float(value) for value in stored[0]]  # 0.7 is stored as 0.699999988...
    expected = 1 + sum(x * math.log(x) for x in p) / math.log(3)
    assert confidence(stored)[0] == pytest.approx(expected, rel=0, abs=1e-15)
    wished = 1 + sum(x * math.log(x) for x in (0.7, 0.2, 0.1)) / math.log(3)
    assert abs(expected - wished) > 1e-9, "the case must tell the two apart"


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=6).filter(lambda p: sum(p) > 0.1))
def test_confidence_stays_in_0_to_1_and_equals_a_loop(weights):
    stored = (np.array([weights]) / sum(weights)).astype(np.float32)
    entropy = -sum(p * math.log(p) for p in map(float, stored[0]) if p > 0)
    expected = min(max(1 - entropy / math.log(len(weights)), 0), 1)
    got = confidence(stored)[0]
    assert 0 <= got <= 1
    assert got == pytest.approx(expected, rel=0, abs=1e-14)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        confidence(np.ones((3, 1), np.float32))
