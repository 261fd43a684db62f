"""The tables of a report, read from the views of a run.

They are aggregated in DuckDB, so that a report on 50,000 queries is as small as one on 500.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from xmore.report.headline import Headline
from xmore.report.leaderboard import (
    _memory,
    _paper,
    averages,
    hyperparameters,
    leaderboard,
)
from xmore.report.prompt_sets import prompt_sets
from xmore.report.recalls import model_comparisons, recalls
from xmore.report.table import Table, without_unused
from xmore.results.absent import is_absent
from xmore.results.runs import Run
from xmore.statistics.intervals import LEVEL
from xmore.store.checks import read_manifest

CLASSES = 10  # number of classes that captions help most, and of those that they hurt most


def tables(run: Run, db: duckdb.DuckDBPyConnection, of: Headline | None) -> list[Table]:
    """Return all tables of the report for which the run has rows; `of` is None without methods."""
    of_methods = _of_methods(run, db, of) if of else []
    all_tables = [*of_methods, recalls(db, run), model_comparisons(db), stages(run)]
    return [table for table in all_tables if table.rows]


def _of_methods(run: Run, db: duckdb.DuckDBPyConnection, of: Headline) -> list[Table]:
    return [
        leaderboard(db, run),
        hyperparameters(db, run),
        averages(db, run),
        _paper(run),
        prompt_sets(db, run),
        comparisons(db, run),
        _resolution(db, run, of),
        _by_class(db, run, of),
        _weight_ratios(db, run),
        _entropies(db, run),
        _retrieval(db, run),
    ]


def comparisons(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    """Return the comparison of every pair of methods, formatted for display."""
    rows = db.execute(
        """
        select dataset, model, n, m, under(variant(method, adjustment), prompt_set),
               under(variant(baseline, baseline_adjustment), baseline_prompt_set),
               difference, ci_low, ci_high, only_method, only_baseline, p, p_holm
        from comparisons
        """
    ).fetchall()
    return Table(
        "comparisons",
        "All pairs of methods on the same images",
        f"Difference in points with its 95 % paired bootstrap interval; {_memory(run)}. Only: "
        "number of images that only one of the two predicts correctly, in the order with the "
        "largest p. Holm's correction is over all rows with the same model and baseline.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("n", "count"),
            ("M", "count"),
            ("method", "text"),
            ("over", "text"),
            ("difference", "points"),
            ("low", "points"),
            ("high", "points"),
            ("only it", "count"),
            ("only the other", "count"),
            ("p", "p"),
            ("p, Holm", "p"),
        ],
        rows,
    )


def _resolution(db: duckdb.DuckDBPyConnection, run: Run, of: Headline) -> Table:
    rows = db.execute(
        """
        select l.dataset, l.model, l.n, (l.ci_high - l.ci_low) / 2, c.minimum_detectable,
               c.difference
        from leaderboard l
        join comparisons c on c.dataset = l.dataset and c.model = l.model
         and c.method = $method and c.adjustment is not distinct from $adjustment
         and c.m is not distinct from $m and c.baseline = 'clip'
         and c.prompt_set = l.prompt_set and c.baseline_prompt_set = l.prompt_set
        where l.method = 'clip' and l.prompt_set = $prompt_set
        """,
        of.values,
    ).fetchall()
    return Table(
        "resolution",
        "Detectable differences",
        f"In points: the difference between {of.full_name} and clip that McNemar's test "
        f"(p < {LEVEL}) would find in 8 of 10 such test sets, given the number of images "
        "that only one of the two predicts correctly (Connor 1987); empty if too few differ. "
        f"{_memory(run).capitalize()}.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("n", "count"),
            ("± of clip", "share"),
            ("detectable", "share"),
            ("seen", "points"),
        ],
        rows,
    )


def _by_class(db: duckdb.DuckDBPyConnection, run: Run, of: Headline) -> Table:
    rows = db.execute(
        """
        select a.dataset, a.model, a.class_name, a.n, b.top1, a.top1, a.ci_low, a.ci_high,
               a.top1 - b.top1 as gain
        from by_class a
        join by_class b on b.dataset = a.dataset and b.model = a.model and b.label = a.label
         and b.method = 'clip' and b.prompt_set = a.prompt_set
        where a.method = $method and a.adjustment is not distinct from $adjustment
          and a.m is not distinct from $m and a.prompt_set = $prompt_set and a.method != 'clip'
        order by a.dataset, a.model, gain desc, a.label
        """,
        of.values,
    ).fetchall()
    return Table(
        "by_class",
        "Accuracy by class",
        f"Top-1 of clip and of {of.full_name}, with Wilson's 95 % interval of the latter over the "
        f"n images of the class; {_memory(run)}.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("class", "text"),
            ("n", "count"),
            ("clip %", "share"),
            (f"{of.name} %", "share"),
            ("low", "share"),
            ("high", "share"),
            ("gain", "points"),
        ],
        rows,
    )


def _weight_ratios(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    rows = db.execute(
        "select dataset, model, m, adjustment, prompt_set, who_was_right, queries, answers, "
        "excluded, mean_ratio, median_ratio from weight_ratios order by dataset, model, m, "
        "adjustment_place(adjustment), set_place(prompt_set), "
        "list_position(['image', 'captions', 'only both together'], who_was_right)"
    ).fetchall()
    table = Table(
        "weight_ratios",
        "Image weight divided by text weight",
        "By the correct modality, as in the paper's Table 8: mean and median over the predictions "
        f"of all order seeds with a text weight above 0; excluded: the others. {_memory(run)}.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("M", "count"),
            ("adjustment", "text"),
            ("prompts", "text"),
            ("right", "text"),
            ("images", "count"),
            ("answers", "count"),
            ("excluded", "count"),
            ("mean", "number"),
            ("median", "number"),
        ],
        rows,
    )
    return without_unused(table, "prompts")


def _entropies(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    rows = db.execute(
        "select dataset, model, modality, m, prompt_set, mean_entropy from entropies"
    ).fetchall()
    table = Table(
        "entropies",
        "Mean entropy of the scores",
        f"In nats, over the test images, as in the paper's Table 6; {_memory(run)}.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("of", "text"),
            ("M", "count"),
            ("prompts", "text"),
            ("entropy", "number"),
        ],
        rows,
    )
    return without_unused(table, "prompts")


def _retrieval(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    recall = {}
    for ref in run.artifacts:
        if ref.stage == "candidates" and not is_absent(ref):
            manifest = read_manifest(Path(ref.path))
            used = manifest["params"].get("search") == "index"  # older ones hold it for any
            measured = manifest["facts"].get("index_recall") if used else None
            recall[ref.dataset] = measured["recall"] if measured else None
    found = db.execute(
        """
        select dataset, any_value(model), count(*), max(len(memory_ids)), avg(similarities[1]),
               avg(list_last(similarities)), (select avg(len(captions)) from captions c
               where c.dataset = candidates.dataset)
        from candidates group by dataset order by dataset
        """
    ).fetchall()
    return Table(
        "retrieval",
        "Retrieval",
        f"Coarse neighbours of the n test images; {_memory(run)}. Nearest and last: mean inner "
        "product. Index recall: share of the exact neighbours that the memory's index finds for "
        "these images, if it was used and exact search is affordable.",
        [
            ("dataset", "text"),
            ("coarse model", "text"),
            ("n", "count"),
            ("K", "count"),
            ("nearest", "number"),
            ("last", "number"),
            ("captions kept", "number"),
            ("index recall %", "share"),
        ],
        [(*row, recall.get(row[0])) for row in found],
    )


def stages(run: Run) -> Table:
    """Return the artifacts of each stage, and their cost."""
    rows: dict[str, list[Any]] = {}
    for ref in run.artifacts:
        row = rows.setdefault(ref.stage, [ref.stage, 0, 0, 0, 0.0, None])
        row[1] += 1
        row[2] += ref.skipped
        row[3] += ref.rows
        row[4] += ref.seconds
        row[5] = max(filter(None, (row[5], ref.peak_rss_mb)), default=None)
    return Table(
        "stages",
        "Cost",
        "Seconds and peak memory of the process for each stage; skipped: it already existed.",
        [
            ("stage", "text"),
            ("artifacts", "count"),
            ("skipped", "count"),
            ("rows", "count"),
            ("seconds", "number"),
            ("peak MB", "number"),
        ],
        [tuple(row) for row in rows.values()],
    )


def gains(table: Table) -> list[tuple[str, str, list[tuple[str, int, float]]]]:
    """Return dataset, model and the classes helped or hurt most, best first, from `by_class`."""
    groups: dict[tuple[str, str], list[tuple[str, int, float]]] = {}
    for dataset, model, name, n, *_, gain in table.rows:
        groups.setdefault((dataset, model), []).append((name, n, gain))
    found = []
    for (dataset, model), classes in groups.items():
        helped = [c for c in classes if c[2] > 0][:CLASSES]
        hurt = [c for c in classes if c[2] < 0][-CLASSES:]
        found.append((dataset, model, helped + hurt))
    return found
