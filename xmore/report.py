"""What a report says of a run, gathered from the run's views: tables, curves, examples.

All of it is aggregated in DuckDB or sampled, so that a report of 50,000 queries is as small as one
of 500. Nothing is drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np

from xmore.compare import to_paper
from xmore.errors import RunError
from xmore.methods.base import variant_name
from xmore.runs import Run
from xmore.statistics import LEVEL
from xmore.store import read_manifest

BINS = 25  # of a confidence histogram, over [0, 1]
RANKS = 64  # points of a curve over ranks, at most
CLASSES = 10  # that captions help most, and as many that they hurt most

Kind = Literal["text", "count", "share", "points", "number", "p"]


@dataclass(frozen=True)
class Headline:
    """The variant that the curves and examples are of: one method, M and order of many."""

    method: str
    adjustment: str | None
    m: int | None
    seed: int | None

    @property
    def name(self) -> str:
        return variant_name(self.method, self.adjustment)

    @property
    def values(self) -> dict[str, Any]:
        """What a query needs to ask for this variant, whatever the order."""
        return {"method": self.method, "adjustment": self.adjustment, "m": self.m}


@dataclass(frozen=True)
class Table:
    """Raw values, and how each column is to be read."""

    name: str  # of its files
    title: str
    note: str
    columns: list[tuple[str, Kind]]
    rows: list[tuple[Any, ...]]

    def shown(self) -> list[list[str]]:
        """Every cell as text for people."""
        kinds = [kind for _, kind in self.columns]
        return [
            [show(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in self.rows
        ]


def show(value: Any, kind: Kind) -> str:
    """A cell for people; empty for none."""
    if value is None:
        return ""
    if kind == "count":
        return f"{value:,.0f}"
    if kind == "share":
        return f"{100 * value:.1f}"
    if kind == "points":
        return f"{100 * value:+.1f}"
    if kind == "number":
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if kind == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    return str(value)


def headline(db: duckdb.DuckDBPyConnection) -> Headline:
    """`xmore` with its first adjustment where the run has it, else its last method."""
    row = db.execute(
        """
        select method, adjustment, m, min(seed) from metrics
        group by method, adjustment, m
        order by method_place(method) desc nulls last, method, m desc nulls last,
                 adjustment_place(adjustment)
        limit 1
        """
    ).fetchone()
    if row is None:
        raise RunError("this run has no metrics to report.")
    return Headline(*row)


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


def _memory(run: Run) -> str:
    return f"memory snapshot {run.snapshot['name']}"


def leaderboard(db: duckdb.DuckDBPyConnection, run: Run, oracle: bool = False) -> Table:
    """The view of the name, as people read it; `oracle` adds what has seen test labels."""
    rows = db.execute(
        f"""
        select dataset, model, n, variant(method, adjustment), m, top1, ci_low, ci_high,
               difference, p_holm, top1_std, top1_covered, n_short, top5, ece,
               seconds_per_image, peak_memory_mb
        from leaderboard{"_all" if oracle else ""}
        """
    ).fetchall()
    return Table(
        "leaderboard",
        "Accuracy",
        f"Top-1 and top-5 in %, mean over the order seeds, with Wilson's 95 % interval over the n "
        f"test images; {_memory(run)}. To clip: points on the same images; p: exact McNemar of the "
        "least favourable order, corrected by Holm for all that one model's clip is compared with. "
        "± seeds: deviation over the orders, no sampling error. Covered: over images with a "
        "caption; short: images with fewer than M. s / image and memory (MB of the process, at its "
        "largest): of all stages that the answers come from, when they were made.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("n", "count"),
            ("method", "text"),
            ("M", "count"),
            ("top-1", "share"),
            ("low", "share"),
            ("high", "share"),
            ("to clip", "points"),
            ("p", "p"),
            ("± seeds", "share"),
            ("covered", "share"),
            ("short", "count"),
            ("top-5", "share"),
            ("ECE", "share"),
            ("s / image", "number"),
            ("memory MB", "count"),
        ],
        rows,
    )


def hyperparameters(db: duckdb.DuckDBPyConnection, run: Run, oracle: bool = False) -> Table:
    """What each method's settings are, a column for each place where they come from."""
    rows = db.execute(
        f"""
        with told as (
          select method, source, h.name || ' ' || value as setting
          from hyperparameters h
          semi join leaderboard{"_all" if oracle else ""} l
            on l.method = h.method and l.dataset = h.dataset
        )
        select method,
               string_agg(distinct setting, ', ' order by setting) filter (source = 'paper'),
               string_agg(distinct setting, ', ' order by setting) filter (source = 'fixed'),
               string_agg(distinct setting, ', ' order by setting) filter (source = 'validation'),
               string_agg(distinct setting, ', ' order by setting) filter (source = 'oracle')
        from told group by method order by method_place(method) nulls last, method
        """
    ).fetchall()
    return Table(
        "hyperparameters",
        "Where the hyper-parameters come from",
        "Paper: as the method's paper has it; fixed: set before any label was seen; validation: "
        "searched on labels of a validation set; oracle: searched on the test labels. "
        f"{_memory(run).capitalize()}.",
        [(name, "text") for name in ("method", "paper", "fixed", "validation", "oracle")],
        rows,
    )


def averages(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    """Macro averages over the datasets; no rows for a run of one."""
    rows = db.execute(
        """
        select model, variant(method, adjustment), m, datasets, top1, ci_low,
               ci_high, difference, difference_low, difference_high
        from averages
        """
    ).fetchall()
    return Table(
        "averages",
        "Mean over the datasets",
        f"Each dataset counts alike; {_memory(run)}. The intervals of accuracy "
        "(low, high) and difference (least, most) combine the datasets' own.",
        [
            ("model", "text"),
            ("method", "text"),
            ("M", "count"),
            ("datasets", "count"),
            ("top-1", "share"),
            ("low", "share"),
            ("high", "share"),
            ("to clip", "points"),
            ("least", "points"),
            ("most", "points"),
        ],
        rows,
    )


def _paper(run: Run) -> Table:
    try:
        found = to_paper(run)
    except RunError:  # nothing of it is in the paper
        found = []
    rows = [
        (
            row.model,
            row.dataset,
            row.method,
            row.paper / 100,
            row.ours / 100,
            (row.ours - row.paper) / 100,
            {True: "yes", False: "no", None: ""}[row.inside],
            row.errata,
        )
        for row in found
    ]
    return Table(
        "paper",
        "Beside the paper",
        f"Tables 1 and 2 of arXiv 2308.15273; ours with {_memory(run)}. Inside: the paper's number "
        "lies in our 95 % interval. The paper's text has minmax, its authors' code running-sum.",
        [
            ("model", "text"),
            ("dataset", "text"),
            ("method", "text"),
            ("paper", "share"),
            ("ours", "share"),
            ("difference", "points"),
            ("inside", "text"),
            ("errata", "text"),
        ],
        rows,
    )


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


@dataclass(frozen=True)
class Histogram:
    """Of one quantity of one modality, under one dataset and model."""

    dataset: str
    model: str
    n: int
    quantity: str  # `confidence` or `weight`
    modality: str  # `image` or `captions`
    counts: np.ndarray  # (BINS,) int


def confidences(db: duckdb.DuckDBPyConnection, of: Headline) -> list[Histogram]:
    """Confidences before, and weights after adjustment, of both modalities."""
    rows = db.execute(
        f"""
        with told as (
          select dataset, model, image_weight, text_weight, image_confidence, text_confidence
          from predictions join scores using (dataset, model, m, query_id)
          where method = $method and adjustment is not distinct from $adjustment and m = $m
            and seed is not distinct from $seed
        ), long as (
          select dataset, model, 'confidence' as quantity, 'image' as modality,
                 image_confidence as value from told
          union all select dataset, model, 'confidence', 'captions', text_confidence from told
          union all select dataset, model, 'weight', 'image', image_weight from told
          union all select dataset, model, 'weight', 'captions', text_weight from told
        )
        select dataset, model, quantity, modality,
               least(greatest(floor(value * {BINS}), 0), {BINS - 1})::integer as bin, count(*)
        from long where value is not null group by all order by all
        """,
        of.values | {"seed": of.seed},
    ).fetchall()
    counts: dict[tuple[str, str, str, str], np.ndarray] = {}
    for *key, number, count in rows:
        counts.setdefault(tuple(key), np.zeros(BINS, np.int64))[number] = count
    return [
        Histogram(dataset, model, int(found.sum()), quantity, modality, found)
        for (dataset, model, quantity, modality), found in counts.items()
    ]


@dataclass(frozen=True)
class Curve:
    """Points of one variant, or of one quantity, on one dataset."""

    dataset: str
    model: str
    n: int
    name: str
    x: np.ndarray  # (P,)
    y: np.ndarray  # (P,)
    low: np.ndarray  # (P,) of a band around y
    high: np.ndarray


def by_m(db: duckdb.DuckDBPyConnection) -> list[Curve]:
    """Top-1 over M with its interval, where the run has several (the paper's Figure 4)."""
    return _curves(
        db,
        """
        select dataset, model, n, variant(method, adjustment) as name,
               m, top1, ci_low, ci_high
        from leaderboard where m is not null
          and (select count(distinct m) from leaderboard) > 1
        order by all
        """,
    )


def reliability(db: duckdb.DuckDBPyConnection, of: Headline) -> list[Curve]:
    """Accuracy by probability, of `clip`, `caption-ensemble`, `equal` and the headline."""
    return _curves(
        db,
        """
        select r.dataset, r.model, l.n, name,
               probability, top1, greatest(0, wilson(top1, answers / seeds, -1)),
               least(1, wilson(top1, answers / seeds, 1))
        from (
          select *, variant(method, adjustment) as name from reliability
        ) r
        join (select dataset, model, n, method, adjustment, m, greatest(seeds, 1) as seeds
              from leaderboard) l
          on l.dataset = r.dataset and l.model = r.model and l.method = r.method
         and l.adjustment is not distinct from r.adjustment and l.m is not distinct from r.m
        where (r.m is null or r.m = $m)
          and (r.adjustment is null or (r.method = $method and r.adjustment = $adjustment))
        order by r.dataset, r.model,
                 method_place(r.method) nulls last, name, bin
        """,
        of.values,
    )


def similarities(db: duckdb.DuckDBPyConnection) -> list[Curve]:
    """Similarity of the coarse neighbours by rank: median, and the middle 80 % of the images."""
    return _curves(
        db,
        f"""
        with ranked as (
          select dataset, model, rank, similarity from candidates_long
          where rank <= 16 or rank % greatest(1, (select max(len(memory_ids)) from candidates)
                                              // {RANKS}) = 0
        )
        select dataset, model, max(count(*)) over (partition by dataset), 'similarity', rank,
               quantile_cont(similarity, 0.5), quantile_cont(similarity, 0.1),
               quantile_cont(similarity, 0.9)
        from ranked group by dataset, model, rank order by dataset, model, rank
        """,
    )


def _curves(
    db: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any] | None = None
) -> list[Curve]:
    points: dict[tuple[str, str, str], list[tuple[float, ...]]] = {}
    sizes: dict[tuple[str, str, str], int] = {}
    for dataset, model, n, name, *point in db.execute(query, values or {}).fetchall():
        points.setdefault((dataset, model, name), []).append(tuple(map(float, point)))
        sizes[dataset, model, name] = n
    curves = []
    for (dataset, model, name), found in points.items():
        x, y, low, high = np.array(found).T
        curves.append(Curve(dataset, model, sizes[dataset, model, name], name, x, y, low, high))
    return curves


def summary(db: duckdb.DuckDBPyConnection, of: Headline) -> list[str]:
    """What the run shows, a sentence for each dataset and model."""
    rows = db.execute(
        """
        select dataset, model, n, top1, ci_low, ci_high, difference, difference_low,
               difference_high, p_holm
        from leaderboard
        where method = $method and adjustment is not distinct from $adjustment
          and m is not distinct from $m
        """,
        of.values,
    ).fetchall()
    return [_sentence(of, *row) for row in rows]


def _sentence(
    of: Headline, dataset: str, model: str, n: int, top1: float, *numbers: float | None
) -> str:
    low, high, difference, less, more, p = numbers
    said = (
        f"{dataset}, {model}: {of.name} answers {show(top1, 'share')} % of {n:,} images rightly "
        f"({show(low, 'share')} to {show(high, 'share')})"
    )
    if difference is None or p is None:
        return f"{said}."
    beside = (
        f"{show(difference, 'points')} points to clip ({show(less, 'points')} to "
        f"{show(more, 'points')}; p {show(p, 'p') if p < 0.001 else '= ' + show(p, 'p')})"
    )
    verdict = "more than chance" if p < LEVEL else "it may be chance"
    return f"{said}, {beside}: {verdict}."


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
