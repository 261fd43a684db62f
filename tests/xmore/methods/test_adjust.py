import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmore.methods.adjust import (
    ADJUSTMENTS,
    StreamState,
    advance,
    minmax,
    running_sum,
    stream_order,
)

CASES = json.loads((Path(__file__).parents[2] / "cases" / "adjust.json").read_text())

confidences = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 1.0]), st.just(math.nan)), max_size=30
)


def same_bits(left, right):
    """Equal to the last bit; NaN is NaN whatever its payload."""
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    nan = np.isnan(left)
    return np.array_equal(nan, np.isnan(right)) and np.array_equal(
        left[~nan].view(np.int64), right[~nan].view(np.int64)
    )


def minmax_one_by_one(stream):
    low, high, weights = math.inf, -math.inf, []
    for c in stream:
        if math.isnan(c):
            weights.append(math.nan)
            continue
        low, high = min(low, c), max(high, c)
        weights.append(0.5 if high == low else (c - low) / (high - low))
    return weights


def running_sum_one_by_one(stream):
    total, weights = 0.0, []
    for c in stream:
        if math.isnan(c):
            weights.append(math.nan)
            continue
        total += c
        weights.append(0.0 if total == 0 else c / total)
    return weights


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['adjustment']}: {c['why'][:40]}")
def test_golden(case):
    got = ADJUSTMENTS[case["adjustment"]].apply(np.array(case["confidence"], np.float64))
    expected = np.array(case["expected"], np.float64)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15)


ORDERED = [(minmax, minmax_one_by_one), (running_sum, running_sum_one_by_one)]


@pytest.mark.parametrize(("adjust", "one_by_one"), ORDERED)
@given(stream=confidences)
def test_equals_the_one_by_one_loop_bit_for_bit(adjust, one_by_one, stream):
    assert same_bits(adjust(np.array(stream)), one_by_one(stream))


@pytest.mark.parametrize(("adjust", "one_by_one"), ORDERED)
@given(stream=confidences, at=st.integers(0, 30), again=st.integers(0, 30))
def test_goes_on_from_a_saved_state_bit_for_bit(adjust, one_by_one, stream, at, again):
    at, again = sorted((min(at, len(stream)), min(again, len(stream))))
    first, second, third = (np.array(s) for s in (stream[:at], stream[at:again], stream[again:]))
    after_first = advance(first)
    after_second = advance(second, after_first)
    parts = [adjust(first), adjust(second, after_first), adjust(third, after_second)]
    assert same_bits(np.concatenate(parts), one_by_one(stream))
    assert advance(third, after_second) == advance(np.array(stream))


@pytest.mark.parametrize(("adjust", "one_by_one"), ORDERED)
def test_a_long_stream_bit_for_bit(adjust, one_by_one):
    """Long enough for a pairwise sum to round otherwise than one by one."""
    rng = np.random.default_rng(7)
    stream = rng.beta(0.5, 3, 20_000)
    stream[rng.random(len(stream)) < 0.1] = np.nan
    assert same_bits(adjust(stream), one_by_one(stream.tolist()))


def test_state():
    assert advance(np.array([])) == StreamState(math.inf, -math.inf, 0.0)
    assert advance(np.array([math.nan])) == StreamState()
    assert advance(np.array([0.5, math.nan, 0.25])) == StreamState(0.25, 0.5, 0.75)
    assert advance(np.array([0.75]), StreamState(0.25, 0.5, 0.75)) == StreamState(0.25, 0.75, 1.5)


@given(st.integers(0, 200), st.integers(0, 2**40))
def test_stream_order_is_numpys_permutation(queries, seed):
    expected = np.random.default_rng(seed).permutation(queries)
    np.testing.assert_array_equal(stream_order(queries, seed), expected)


def test_order_matters_exactly_where_declared():
    stream = np.array([0.5, 0.25, 1.0, 0.75])
    for name, adjustment in ADJUSTMENTS.items():
        backwards = adjustment.apply(stream[::-1])[::-1]
        assert adjustment.ordered != np.array_equal(adjustment.apply(stream), backwards), name
