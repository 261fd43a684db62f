"""Against published worked examples, a second library, or the test's own exact power."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from xmore.statistics.intervals import bootstrap_interval, wilson
from xmore.statistics.significance import holm, mcnemar_p, minimum_detectable, paired


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_statsmodels(case):
    correct, n = case
    expected = proportion_confint(correct, n, method="wilson")
    assert wilson(correct, n) == pytest.approx(expected, abs=1e-9)


def test_wilson_of_a_published_example():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_sign_test(a, b):
    expected = stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar_p(a, b) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_mcnemar_is_statsmodels_to_the_last_bit(a, b):
    """The tables of older runs hold its values."""
    if a + b:
        assert mcnemar_p(a, b) == mcnemar([[0, a], [b, 0]], exact=True).pvalue


def test_holm_by_hand():
    # sorted 0.005 0.01 0.03 0.04, times 4 3 2 1, and never below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize("shares", [(0.2, 0.5, 0.3), (0.02, 0.9, 0.08), (0, 1, 0)])
def test_the_bootstrap_is_that_of_scipy(shares):
    counts = [round(300 * share) for share in shares]
    difference = np.repeat([-1.0, 0.0, 1.0], counts)
    low, high = bootstrap_interval(difference)
    if len(set(difference)) == 1:
        assert low == high == 0
        return
    other = stats.bootstrap(
        (difference,), np.mean, n_resamples=10_000, method="percentile", random_state=1
    ).confidence_interval
    step = 3 / 300  # both are random: three queries
    assert (low, high) == pytest.approx((other.low, other.high), abs=step)
    assert low < difference.mean() < high


def test_the_bootstrap_takes_means_over_seeds():
    difference = np.repeat([-1 / 3, 0.0, 2 / 3], [50, 100, 50])
    low, high = bootstrap_interval(difference)
    deviation = difference.std() / np.sqrt(200)
    assert (low, high) == pytest.approx(
        (difference.mean() - 1.96 * deviation, difference.mean() + 1.96 * deviation), abs=0.01
    )
    assert bootstrap_interval(difference) == (low, high)  # of one seed


def test_of_the_orders_the_least_favourable_counts():
    b = np.zeros((1, 100), bool)
    a = np.zeros((3, 100), bool)
    for order, right in enumerate((20, 4, 12)):
        a[order, :right] = True
    found = paired(a, b)
    assert (found.only_a, found.only_b, found.p) == (4, 0, mcnemar_p(4, 0))
    assert found.difference == pytest.approx(0.12)
    assert found.low < 0.12 < found.high
    same = paired(a, a)  # order by order
    assert (same.only_a, same.only_b, same.p, same.difference) == (0, 0, 1.0, 0.0)


@pytest.mark.parametrize("discordant, n", [(40, 217), (12, 217), (120, 2000)])
def test_the_detectable_difference_is_found_in_eight_of_ten(discordant, n):
    found = minimum_detectable(discordant, n)
    assert _power(discordant / n, found, n) == pytest.approx(0.8, abs=0.06)


def _power(psi, difference, n):
    """How often exact McNemar says p < 0.05, by summing over all outcomes."""
    total = 0.0
    for flips in range(int(stats.binom.isf(1e-9, n, psi)) + 1):
        mine = np.arange(flips + 1)
        found = [mcnemar_p(a, flips - a) < 0.05 for a in mine.tolist()]
        share = (psi + difference) / 2 / psi
        hit = stats.binom.pmf(mine, flips, min(share, 1.0))[found].sum()
        total += stats.binom.pmf(flips, n, psi) * hit
    return total


def test_nothing_is_detectable_without_enough_that_differs():
    assert minimum_detectable(0, 217) is None
    assert minimum_detectable(3, 217) is None
