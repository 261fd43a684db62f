"""The leaderboard: methods side by side, their settings, and the paper's numbers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import duckdb

from xmore.files.errors import RunError
from xmore.report.table import Table, show
from xmore.results.compare import to_paper
from xmore.results.runs import Run
from xmore.results.views import open_views
from xmore.statistics.intervals import LEVEL


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


@dataclass(frozen=True)
class Leaderboard:
    """The methods on one dataset under one model, as people read them."""

    dataset: str
    model: str
    n: int  # test images, of the method that answered most
    lines: list[list[str]]

    columns = (
        "method", "M", "n", "top-1 %", "to clip", "p", "± seeds", "covered", "top-5", "short",
        "s / image", "MB",
    )  # fmt: skip


LEGEND = (
    "top-1 ± half of Wilson's 95 % interval over the n images; ± seeds: deviation over the orders.",
    "to clip: points on the same images, * where more than chance: p < 0.05, exact McNemar of the",
    "least favourable order, corrected (Holm) for all that one model's `clip` is compared with.",
    "s / image, MB (of the process): all stages that the answers come from, when they were made.",
)


def leaderboards(run: Run, oracle: bool = False) -> list[Leaderboard]:
    """The table `leaderboard`, narrower: a board a dataset and model.

    `oracle` adds methods whose hyper-parameters have seen test labels.
    """
    boards: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    found = leaderboard(open_views(run), run, oracle)
    for dataset, model, n, name, m, *numbers in found.rows:
        top1, low, high, difference, p, std, covered, short, top5, _, seconds, peak = numbers
        sizes[dataset, model] = max(n, sizes[dataset, model])
        boards[dataset, model].append(
            [
                name,
                "" if m is None else str(m),
                str(n),
                f"{show(top1, 'share')} ± {show((high - low) / 2, 'share')}",
                points(difference, p),
                show(p, "p"),
                show(std, "share"),
                show(covered, "share"),
                show(top5, "share"),
                "" if m is None else str(short),
                show(seconds, "number"),
                show(peak, "count"),
            ]
        )
    return [Leaderboard(*of, sizes[of], lines) for of, lines in boards.items()]


AVERAGES = ("model", "method", "M", "datasets", "top-1 %", "95 % interval", "to clip", "95 %")


def average_lines(run: Run) -> list[list[str]]:
    """Rows under AVERAGES: the table `averages`, narrower."""
    return [
        [
            model,
            name,
            "" if m is None else str(m),
            str(datasets),
            show(top1, "share"),
            f"{show(low, 'share')} to {show(high, 'share')}",
            points(difference),
            "" if difference is None else f"{show(least, 'points')} to {show(most, 'points')}",
        ]
        for model, name, m, datasets, top1, low, high, difference, least, most
        in averages(open_views(run), run).rows
    ]  # fmt: skip


def points(difference: float | None, p: float | None = None) -> str:
    """A difference of shares in percentage points; a star where its p says more than chance."""
    if difference is None:
        return ""
    return f"{'* ' if p is not None and p < LEVEL else ''}{show(difference, 'points')}"
