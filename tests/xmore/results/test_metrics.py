import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from xmore.results.metrics import Outcome, accuracy_row, expected_calibration_error, mean_entropy

CASES = json.loads((Path(__file__).parents[2] / "cases" / "metrics.json").read_text())


def golden(name):
    return pytest.mark.parametrize("case", CASES[name], ids=lambda case: case["why"][:40])


def array(values, dtype=np.float64):
    return np.array(values, dtype)  # null -> NaN


def close(expected):
    return expected if expected is None else pytest.approx(expected, rel=0, abs=1e-9)


@golden("accuracy_row")
def test_accuracy_row(case):
    outcome = Outcome(
        array(case["label"], np.int64),
        array(case["prediction"]),
        array(case["probability"]),
        array(case["in_top5"], bool),
        array(case["caption_count"], np.int64),
    )
    got = accuracy_row(outcome, case["m"])
    assert got.keys() == case["expected"].keys()
    for key, value in case["expected"].items():
        assert got[key] == close(value), key


@golden("ece")
def test_ece(case):
    got = expected_calibration_error(array(case["probability"]), array(case["correct"], bool))
    assert got == close(case["expected"])


@golden("mean_entropy")
def test_mean_entropy(case):
    assert mean_entropy(array(case["confidence"]), case["classes"]) == close(case["expected"])


def outcome_of(correct, n):
    right = np.arange(n) < correct
    return Outcome(
        np.zeros(n, np.int64), np.where(right, 0.0, 1.0), np.ones(n), right, np.ones(n, np.int64)
    )


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_equals_its_formula_and_scipys(count):
    correct, n = count
    got = accuracy_row(outcome_of(correct, n), 1)
    z, p = 1.959963984540054, correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert got["ci_low"] == pytest.approx(centre - half, rel=0, abs=1e-12)
    assert got["ci_high"] == pytest.approx(centre + half, rel=0, abs=1e-12)
    scipys = binomtest(correct, n).proportion_ci(0.95, "wilson")
    assert (got["ci_low"], got["ci_high"]) == (scipys.low, scipys.high)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_ece_equals_a_loop_over_15_bins(queries):
    gaps = 0.0
    for low in range(15):
        members = [
            (p, c) for p, c in queries if low < p * 15 <= low + 1 or (low == 0 and p * 15 == 0)
        ]
        if members:
            accuracy = sum(c for _, c in members) / len(members)
            mean = sum(p for p, _ in members) / len(members)
            gaps += len(members) * abs(accuracy - mean)
    probability, correct = zip(*queries, strict=True)
    got = expected_calibration_error(np.array(probability), np.array(correct))
    assert got == pytest.approx(gaps / len(queries), rel=0, abs=1e-12)
