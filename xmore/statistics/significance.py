"""Whether the difference between two methods is statistically significant.

Sampling error is over the test images. The order seeds only re-order the same images, so their
standard deviation is reported separately and never makes an interval narrower.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xmore.statistics.intervals import LEVEL, bootstrap_interval

POWER = 0.8


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p that both kinds of flip are equally likely (McNemar 1947).

    Without any flip p is 1.
    """
    if not only_a + only_b:
        return 1.0
    from scipy.stats import binom  # statsmodels' mcnemar, without a second of imports (pandas)

    return min(1.0, 2 * float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


@dataclass(frozen=True)
class Paired:
    """The comparison of two methods' predictions on the same queries."""

    difference: float  # of the accuracies, a - b, mean over the order seeds
    low: float  # its 95 % bootstrap interval over the queries
    high: float
    only_a: int  # queries that only a predicts correctly, for the order seed of `p`
    only_b: int
    p: float  # McNemar's
    minimum_detectable: float | None


def paired(a: np.ndarray, b: np.ndarray) -> Paired:
    """Compare (S, N) bool with (S, N) or (1, N): correct or not, one row per order seed.

    Rows are compared seed by seed; a single row is compared with each. The largest p over the seeds
    is reported, so that a significant difference is significant in every order.
    """
    difference = a.mean(0) - b.mean(0)
    low, high = bootstrap_interval(difference)
    a, b = np.broadcast_arrays(a, b)
    flips = zip((a & ~b).sum(1).tolist(), (b & ~a).sum(1).tolist(), strict=True)
    p, only_a, only_b = max((mcnemar_p(*flip), *flip) for flip in flips)
    detectable = minimum_detectable(only_a + only_b, len(difference))
    return Paired(float(difference.mean()), low, high, only_a, only_b, p, detectable)


def holm(p: Sequence[float]) -> list[float]:
    """Return the p values of one family of tests, in order, Holm-corrected (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests

    if not p:
        return []
    gc.freeze()  # statsmodels collects garbage: 0.3 s per call in a process with loaded models
    try:
        return multipletests(p, method="holm")[1].tolist()
    finally:
        gc.unfreeze()


def correct(rows: list[dict[str, Any]], family: Callable[[dict[str, Any]], Hashable]) -> None:
    """Add `p_holm` to rows that have a `p`, Holm-corrected within each family."""
    families = defaultdict(list)
    for row in rows:
        families[family(row)].append(row)
    for mine in families.values():
        for row, p in zip(mine, holm([row["p"] for row in mine]), strict=True):
            row["p_holm"] = p


def minimum_detectable(discordant: int, n: int) -> float | None:
    """Return the smallest difference of accuracies that McNemar's test finds in 8 of 10 cases.

    Exactly one of the two methods predicts `discordant` of the `n` queries correctly. Uses the
    normal approximation of Connor 1987 ("Sample size for testing differences in proportions for the
    paired-sample design"), solved for the difference d:
    d sqrt(n) = z_level sqrt(psi) + z_power sqrt(psi - d^2), psi = discordant / n.
    None without discordant queries, or if even a difference of psi would not be found.
    """
    from scipy.stats import norm

    psi = discordant / n
    level, power = norm.ppf(1 - LEVEL / 2), norm.ppf(POWER)
    a = level * np.sqrt(psi)
    b = np.sqrt(n)
    inner = a**2 * b**2 - (n + power**2) * (a**2 - power**2 * psi)
    if not discordant or inner < 0:
        return None
    d = (a * b + np.sqrt(inner)) / (n + power**2)
    return float(d) if d <= psi else None
