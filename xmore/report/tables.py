"""What a report says of a run, gathered from the run's views: tables, curves, examples.

All of it is aggregated in DuckDB or sampled, so that a report of 50,000 queries is as small as one
of 500. Nothing is drawn here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from xmore.report.headline import Headline
from xmore.report.leaderboard import _memory, _paper, averages, hyperparameters, leaderboard
from xmore.report.table import Table
from xmore.results.runs import Run
from xmore.statistics.intervals import LEVEL
from xmore.store.artifacts import read_manifest

CLASSES = 10  # that captions help most, and as many that they hurt most


def tables(run: Run, db: duckdb.DuckDBPyConnection, of: Headline) -> list[Table]:
    """Every table of the report that the run has rows for."""
    made = [
        leaderboard(db, run),
        hyperparameters(db, run),
        averages(db, run),
        _paper(run),
        comparisons(db, run),
        _resolution(db, run, of),
        _by_class(db, run, of),
        _weight_ratios(db, run),
        _entropies(db, run),
        _retrieval(db, run),
        stages(run),
    ]
    return [table for table in made if table.rows]


def comparisons(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    """Every pair of methods, as people read it."""
    rows = db.execute(
        """
        select dataset, model, n, m, variant(method, adjustment),
               variant(baseline, baseline_adjustment),
               difference, ci_low, ci_high, only_method, only_baseline, p, p_holm
        from comparisons
        """
    ).fetchall()
    return Table(
        "comparisons",
        "Every two methods on the same images",
        f"Difference in points with its 95 % paired bootstrap; {_memory(run)}. Only: images that "
        "one of the two alone has right, in the order with the largest p. Holm's correction is "
        "over all rows with the same model and baseline.",
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
        where l.method = 'clip'
        """,
        of.values,
    ).fetchall()
    return Table(
        "resolution",
        "What these test sets can tell",
        f"The difference of {of.name} to clip that McNemar's test (p < {LEVEL}) would find in 8 of "
        "10 such test sets, given how many images only one of the two has right (Connor 1987); "
        f"none where too few differ. {_memory(run).capitalize()}.",
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
         and b.method = 'clip'
        where a.method = $method and a.adjustment is not distinct from $adjustment
          and a.m is not distinct from $m and a.method != 'clip'
        order by a.dataset, a.model, gain desc, a.label
        """,
        of.values,
    ).fetchall()
    return Table(
        "by_class",
        "Accuracy by class",
        f"Top-1 in % of clip and of {of.name}, with Wilson's 95 % interval of the latter over the "
        f"n images of the class; {_memory(run)}.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("class", "text"),
            ("n", "count"),
            ("clip", "share"),
            (of.name, "share"),
            ("low", "share"),
            ("high", "share"),
            ("gain", "points"),
        ],
        rows,
    )


def _weight_ratios(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    rows = db.execute(
        "select dataset, model, m, adjustment, who_was_right, queries, answers, excluded, "
        "mean_ratio, median_ratio from weight_ratios order by dataset, model, m, "
        "adjustment_place(adjustment), "
        "list_position(['image', 'captions', 'only both together'], who_was_right)"
    ).fetchall()
    return Table(
        "weight_ratios",
        "Weight of the image over that of its captions",
        "By who was right, as in the paper's Table 8: mean and median over the answers of all "
        f"order seeds whose captions have a weight above 0; excluded: the others. {_memory(run)}.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("M", "count"),
            ("adjustment", "text"),
            ("right", "text"),
            ("images", "count"),
            ("answers", "count"),
            ("excluded", "count"),
            ("mean", "number"),
            ("median", "number"),
        ],
        rows,
    )


def _entropies(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    rows = db.execute("select dataset, model, modality, m, mean_entropy from entropies").fetchall()
    return Table(
        "entropies",
        "Mean entropy of the scores",
        f"In nats, over the test images, as in the paper's Table 6; {_memory(run)}.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("of", "text"),
            ("M", "count"),
            ("entropy", "number"),
        ],
        rows,
    )


def _retrieval(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    recall = {}
    for ref in run.artifacts:
        if ref.stage == "candidates":
            told = read_manifest(Path(ref.path))["facts"].get("index_recall")
            recall[ref.dataset] = told["recall"] if told else None
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
        "What was retrieved",
        f"Coarse neighbours of the n test images; {_memory(run)}. Similarity: mean inner product "
        "of the nearest and of the last. Recall: share of the exact neighbours that the memory's "
        "index finds for these images, where it was asked.",
        [
            ("dataset", "text"),
            ("coarse model", "text"),
            ("n", "count"),
            ("K", "count"),
            ("nearest", "number"),
            ("last", "number"),
            ("captions kept", "number"),
            ("index recall", "number"),
        ],
        [(*row, recall.get(row[0])) for row in found],
    )


def stages(run: Run) -> Table:
    """What each stage has made, and what that cost."""
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
        "What it cost",
        "Seconds and the process' largest memory of each stage; skipped: it was there already.",
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
    """Of `by_class`: dataset, model, and the classes helped or hurt most, best first."""
    groups: dict[tuple[str, str], list[tuple[str, int, float]]] = {}
    for dataset, model, name, n, *_, gain in table.rows:
        groups.setdefault((dataset, model), []).append((name, n, gain))
    found = []
    for (dataset, model), classes in groups.items():
        helped = [c for c in classes if c[2] > 0][:CLASSES]
        hurt = [c for c in classes if c[2] < 0][-CLASSES:]
        found.append((dataset, model, helped + hurt))
    return found
