"""The variant that a report is about, and its result in one sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import duckdb

from xmore.methods.base import under, variant_name
from xmore.report.table import show
from xmore.statistics.intervals import LEVEL


@dataclass(frozen=True)
class Headline:
    """The variant of the curves and examples: one method, adjustment, M, seed and prompt set."""

    method: str
    adjustment: str | None
    m: int | None
    seed: int | None
    prompt_set: str = ""  # the run's first

    @property
    def name(self) -> str:
        return variant_name(self.method, self.adjustment)

    @property
    def full_name(self) -> str:
        """The name with M: a run may have several, and the numbers shown are of one."""
        of_m = self.name if self.m is None else f"{self.name} (M = {self.m})"
        return under(of_m, self.prompt_set)

    @property
    def values(self) -> dict[str, Any]:
        """The SQL parameters that select this variant, without the order seed."""
        values = {"method": self.method, "adjustment": self.adjustment, "m": self.m}
        return values | {"prompt_set": self.prompt_set}


def headline(db: duckdb.DuckDBPyConnection) -> Headline | None:
    """Return `xmore` with its first adjustment if the run has it, else the run's last method.

    None if the run has retrieval datasets alone.
    """
    row = db.execute(
        """
        select method, adjustment, m, min(seed), min_by(prompt_set, set_place(prompt_set))
        from metrics
        group by method, adjustment, m
        order by (method = 'xmore') desc, method_place(method) desc, method, m desc nulls last,
                 adjustment_place(adjustment)
        limit 1
        """
    ).fetchone()
    return Headline(*row) if row else None


def summary(db: duckdb.DuckDBPyConnection, of: Headline | None) -> list[str]:
    """Return one sentence per dataset, model and prompt set; none of retrieval datasets."""
    if of is None:
        return []
    rows = db.execute(
        """
        select prompt_set, dataset, model, n, top1, ci_low, ci_high, difference, difference_low,
               difference_high, p_holm
        from leaderboard
        where method = $method and adjustment is not distinct from $adjustment
          and m is not distinct from $m
        """,
        {name: value for name, value in of.values.items() if name != "prompt_set"},
    ).fetchall()
    return [_sentence(replace(of, prompt_set=name), *row) for name, *row in rows]


def _sentence(
    of: Headline, dataset: str, model: str, n: int, top1: float, *numbers: float | None
) -> str:
    low, high, difference, less, more, p = numbers
    accuracy = (
        f"{dataset}, {model}: {of.full_name} predicts {show(top1, 'share')} % of {n:,} images "
        f"correctly ({show(low, 'share')} to {show(high, 'share')})"
    )
    if difference is None or p is None:
        return f"{accuracy}."
    compared = (
        f"{show(difference, 'points')} points to clip (95 % interval {show(less, 'points')} to "
        f"{show(more, 'points')}; p {show(p, 'p') if p < 0.001 else '= ' + show(p, 'p')} by "
        "McNemar's test, after Holm's correction for all comparisons with clip)"
    )
    verdict = "statistically significant" if p < LEVEL else "not statistically significant"
    if p >= LEVEL and (less or 0) * (more or 0) > 0:
        verdict += ", though the interval, of this comparison alone, leaves 0 out"
    return f"{accuracy}, {compared}: {verdict}."
