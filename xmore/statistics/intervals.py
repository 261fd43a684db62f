"""95 % intervals of a share or of a mean difference."""

from __future__ import annotations

import numpy as np

# scipy and statsmodels are imported where they are used: importing them takes half a second, which
# commands that only print results should not pay.
LEVEL = 0.05  # two-sided; intervals cover 1 - LEVEL
RESAMPLES = 10_000


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the share `correct` / `n`, n > 0 (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(1 - LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(difference: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of (N,) paired differences, N > 0.

    Differences of predictions take few values, so N draws with replacement are one draw from a
    multinomial over those values. Memory: RESAMPLES x (number of values) integers, whatever N is.
    """
    values, counts = np.unique(difference, return_counts=True)
    n = len(difference)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, RESAMPLES)
    low, high = np.quantile(drawn @ values / n, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def bootstrap_share(hits: np.ndarray, of: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of `hits`.sum() / `of`.sum(), both (N,), N > 0.

    N groups are drawn with replacement, each with its `of` > 0 items, which may be alike. With
    differences of hits, it is the interval of a difference. Memory: RESAMPLES x (number of distinct
    pairs) integers.
    """
    pairs, counts = np.unique(np.stack([hits, of], 1), axis=0, return_counts=True)
    n = len(hits)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, RESAMPLES)
    shares = (drawn @ pairs[:, 0]) / (drawn @ pairs[:, 1])
    low, high = np.quantile(shares, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)
