"""The table that compares a run's prompt sets."""

from __future__ import annotations

import duckdb

from xmore.report.leaderboard import _memory
from xmore.report.table import Table
from xmore.results.runs import Run


def prompt_sets(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    """Return how each method does under a prompt set, compared with itself under an earlier one.

    It has no rows for a run with one set.
    """
    rows = db.execute(
        """
        select dataset, model, variant(method, adjustment), m, prompt_set, baseline_prompt_set,
               n, difference, ci_low, ci_high, p, p_holm
        from comparisons where prompt_set != baseline_prompt_set
        order by dataset, model, method_place(method) nulls last, method, m,
                 adjustment_place(adjustment), set_place(baseline_prompt_set), set_place(prompt_set)
        """
    ).fetchall()
    return Table(
        "prompt_sets",
        "Each method under two prompt sets",
        "Difference in points on the same images, with its 95 % paired bootstrap interval; p: "
        "exact McNemar test of the least favourable order. Holm's correction is over all methods, "
        f"datasets and sets that are compared with one set. {_memory(run).capitalize()}.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("method", "name"),
            ("M", "count"),
            ("prompts", "text"),
            ("over", "text"),
            ("n", "count"),
            ("difference", "points"),
            ("low", "points"),
            ("high", "points"),
            ("p", "p"),
            ("p, Holm", "p"),
        ],
        rows,
    )
