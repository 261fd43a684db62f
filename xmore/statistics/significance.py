"""How sure an accuracy is, and whether a difference of two methods is more than chance.

Sampling error is over the test images. The order seeds are another thing: they re-order the same
images, so their deviation is reported apart and never makes an interval narrower.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xmore.statistics.intervals import LEVEL, bootstrap_interval

POWER = 0.8


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Two-sided exact p that flips either way are equally likely (McNemar 1947); 1 without any."""
    from statsmodels.stats.contingency_tables import mcnemar

    if not only_a + only_b:
        return 1.0
    return float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)


@dataclass(frozen=True)
class Paired:
    """Two methods' answers to the same queries."""

    difference: float  # of the accuracies, a - b, mean over the order seeds
    low: float  # its 95 % bootstrap interval over the queries
    high: float
    only_a: int  # queries that a alone has right, in the order that `p` is of
    only_b: int
    p: float  # McNemar's
    minimum_detectable: float | None


def paired(a: np.ndarray, b: np.ndarray) -> Paired:
    """Compare (S, N) with (S, N) or (1, N) bool: right or not, a row an order seed.

    Order by order where both have one, else the one against each. Of the orders' p values the
    largest counts: what is significant is so in every order, whichever seeds were chosen.
    """
    difference = a.mean(0) - b.mean(0)
    low, high = bootstrap_interval(difference)
    a, b = np.broadcast_arrays(a, b)
    flips = zip((a & ~b).sum(1).tolist(), (b & ~a).sum(1).tolist(), strict=True)
    p, only_a, only_b = max((mcnemar_p(*flip), *flip) for flip in flips)
    detectable = minimum_detectable(only_a + only_b, len(difference))
    return Paired(float(difference.mean()), low, high, only_a, only_b, p, detectable)


def holm(p: Sequence[float]) -> list[float]:
    """The p of one family of tests, corrected for their number (Holm 1979), in the same order."""
    from statsmodels.stats.multitest import multipletests

    if not p:
        return []
    gc.freeze()  # it collects garbage first: 0.3 s a call in a process that holds models
    try:
        return multipletests(p, method="holm")[1].tolist()
    finally:
        gc.unfreeze()


def minimum_detectable(discordant: int, n: int) -> float | None:
    """The smallest difference of two accuracies that McNemar's test would find in 8 of 10 cases.

    For `n` queries of which `discordant` are answered rightly by one method alone; the normal
    approximation of Connor 1987 ("Sample size for testing differences in proportions for the
    paired-sample design"), solved for the difference d:
    d sqrt(n) = z_level sqrt(psi) + z_power sqrt(psi - d^2), psi = discordant / n.
    None without discordant queries, or where even a difference of psi would not be found.
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
