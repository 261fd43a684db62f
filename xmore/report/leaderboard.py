"""The leaderboard: all methods, their settings, and the paper's numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from xmore.files.errors import RunError
from xmore.report.table import Kind, Table, show, without_unused
from xmore.results.compare import PaperRow, to_paper
from xmore.results.runs import Run
from xmore.statistics.intervals import LEVEL


def _memory(run: Run) -> str:
    trial = f", a trial run{run.trial}" if run.trial else ""
    return f"{run.read}{trial}"


def leaderboard(db: duckdb.DuckDBPyConnection, run: Run, oracle: bool = False) -> Table:
    """Return the view `leaderboard`, formatted for display; see `without_unused` of "prompts".

    `oracle` adds methods whose hyper-parameters were searched on the test labels.
    """
    rows = _rows(db, run, oracle)
    table = Table(
        "leaderboard",
        "Accuracy",
        f"Top-1 and top-5: mean over the order seeds, with Wilson's 95 % interval over the n "
        f"test images; {_memory(run)}. To clip: difference in points on the same images. p: exact "
        "McNemar test of the least favourable order, Holm-corrected over all comparisons with one "
        "model's clip. ± seeds: standard deviation over the orders, not a sampling error. Covered: "
        "over images with a caption. Short: number of images with fewer than M captions. s / image "
        "and memory MB (maximum of the process): all stages behind the predictions, measured when "
        "they ran.",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("n", "count"),
            ("method", "text"),
            ("M", "count"),
            ("prompts", "text"),
            ("top-1 %", "share"),
            ("low", "share"),
            ("high", "share"),
            ("to clip", "points"),
            ("p", "p"),
            ("± seeds", "share"),
            ("covered %", "share"),
            ("short", "count"),
            ("top-5 %", "share"),
            ("ECE %", "share"),
            ("s / image", "number"),
            ("memory MB", "count"),
        ],
        rows,
    )
    return without_unused(table, "prompts")


def _rows(db: duckdb.DuckDBPyConnection, run: Run, oracle: bool) -> list[tuple]:
    return db.execute(
        f"""
        select dataset || $trial, model, n, variant(method, adjustment), m, prompt_set, top1,
               ci_low, ci_high, difference, p_holm, top1_std, top1_covered, n_short, top5, ece,
               seconds_per_image, peak_memory_mb
        from leaderboard{"_all" if oracle else ""}
        """,
        {"trial": run.trial},
    ).fetchall()


def hyperparameters(db: duckdb.DuckDBPyConnection, run: Run, oracle: bool = False) -> Table:
    """Return the settings of each method, one column per source."""
    sources = ("paper", "fixed", "validation", "oracle")

    def settings(source: str) -> str:
        order = "order by name, try_cast(value as double), value"
        return f"string_agg(name || ' ' || value, ', ' {order}) filter (source = '{source}')"

    rows = db.execute(
        f"""
        with sourced as (
          select distinct method, source, h.name, value
          from hyperparameters h
          semi join leaderboard{"_all" if oracle else ""} l
            on l.method = h.method and l.dataset = h.dataset
        )
        select method,
               {", ".join(map(settings, sources))}
        from sourced group by method order by method_place(method), method
        """
    ).fetchall()
    return Table(
        "hyperparameters",
        "Sources of the hyper-parameters",
        "Paper: the value of the method's paper; fixed: set before any label was seen; validation: "
        "searched on the labels of a validation set; oracle: searched on the test labels. "
        f"{_memory(run).capitalize()}.",
        [(name, "text") for name in ("method", *sources)],
        rows,
    )


def averages(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    """Return macro averages over the datasets; no rows for a run with one dataset."""
    rows = _average_rows(db)
    table = Table(
        "averages",
        "Mean over the datasets",
        f"Each dataset has the same weight; {_memory(run)}. The intervals of accuracy (low, high) "
        "and difference (least, most) combine those of the datasets.",
        [
            ("model", "text"),
            ("method", "text"),
            ("M", "count"),
            ("prompts", "text"),
            ("datasets", "count"),
            ("top-1 %", "share"),
            ("low", "share"),
            ("high", "share"),
            ("to clip", "points"),
            ("least", "points"),
            ("most", "points"),
        ],
        rows,
    )
    return without_unused(table, "prompts")


def _average_rows(db: duckdb.DuckDBPyConnection) -> list[tuple]:
    return db.execute(
        """
        select model, variant(method, adjustment), m, prompt_set, datasets, top1, ci_low, ci_high,
               difference, difference_low, difference_high
        from averages
        """
    ).fetchall()


def _paper(run: Run) -> Table:
    try:
        found = to_paper(run)
    except RunError:  # nothing of it is in the paper
        found = []
    return paper_table(run, found)


def paper_table(run: Run, found: Sequence[PaperRow]) -> Table:
    """Return the paper's numbers compared with ours, formatted for display."""
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
        "Compared with the paper",
        f"Tables 1 and 2 of arXiv 2308.15273; ours with {_memory(run)}. Inside: whether the "
        "paper's number lies in our 95 % interval. The paper's text uses minmax, the authors' "
        "code running-sum.",
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


# The columns that a terminal has room for.
FEW = ("method", "M", "prompts", "n", "top-1 %", "to clip", "p")
COLUMNS = (
    "method", "M", "prompts", "n", "top-1 %", "to clip", "p", "± seeds", "covered", "top-5",
    "short", "s / image", "MB",
)  # fmt: skip


@dataclass(frozen=True)
class Leaderboard:
    """The methods on one dataset under one model, formatted for display."""

    dataset: str
    model: str
    n: int  # number of test images of the method with the most predictions
    columns: list[str]  # COLUMNS, without "prompts" if the run has only one set
    lines: list[list[str]]

    def table(self, snapshot: str | None, every_column: bool) -> Table:
        """Return the board as a table, with the columns FEW or with all."""
        memory = f"memory {snapshot}" if snapshot else "no memory"
        title = f"{self.dataset}, {self.model}, n = {self.n}, {memory}"
        return _table_of(title, self.columns, self.lines, None if every_column else FEW).filled()


LEGEND = (
    "top-1 ± half of Wilson's 95 % interval over the n images.",
    "to clip: points on the same images; * is significant (p < 0.05, exact McNemar",
    "test of the least favourable order, Holm-corrected over all comparisons with",
    "one model's `clip`).",
    "± seeds: deviation over the orders. covered: accuracy on images with a caption.",
    "short: images with fewer than M captions.",
    "s / image, MB (of the process): all stages behind the predictions, when they ran.",
)
LEGEND_OF_FEW = 4  # lines that explain the columns FEW


TEXTS = ("model", "prompts")


def _table_of(
    title: str,
    names: Sequence[str],
    lines: Sequence[Sequence[str]],
    only: Sequence[str] | None,
) -> Table:
    """Return lines that are formatted for display as a table, with some columns or with all."""
    kept = [i for i, name in enumerate(names) if only is None or name in only]
    columns: list[tuple[str, Kind]] = [
        (names[i], "name" if names[i] == "method" else "text" if names[i] in TEXTS else "figure")
        for i in kept
    ]
    return Table("leaderboard", title, "", columns, [tuple(row[i] for i in kept) for row in lines])


def leaderboards(
    db: duckdb.DuckDBPyConnection, run: Run, oracle: bool = False
) -> list[Leaderboard]:
    """Return the table `leaderboard` with fewer columns: one board per dataset and model.

    `oracle` adds methods whose hyper-parameters were searched on the test labels.
    """
    boards: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    found = _rows(db, run, oracle)
    shown = [i for i, name in enumerate(COLUMNS) if name != "prompts" or any(r[5] for r in found)]
    for dataset, model, n, name, m, prompt_set, *numbers in found:
        top1, low, high, difference, p, std, covered, short, top5, _, seconds, peak = numbers
        sizes[dataset, model] = max(n, sizes[dataset, model])
        cells = [
            name,
            "" if m is None else str(m),
            prompt_set,
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
        boards[dataset, model].append([cells[i] for i in shown])
    columns = [COLUMNS[i] for i in shown]
    return [Leaderboard(*of, sizes[of], columns, lines) for of, lines in boards.items()]


AVERAGES = (
    "model", "method", "M", "prompts", "datasets", "top-1 %", "95 % interval", "to clip", "95 %",
)  # fmt: skip
AVERAGES_FEW = ("model", "method", "M", "prompts", "top-1 %", "95 % interval", "to clip")


def average_table(db: duckdb.DuckDBPyConnection, run: Run, every_column: bool) -> Table:
    """Return the table `averages` as a terminal shows it, with few columns or with all."""
    lines = [
        [
            model,
            name,
            "" if m is None else str(m),
            prompt_set,
            str(datasets),
            show(top1, "share"),
            f"{show(low, 'share')} to {show(high, 'share')}",
            points(difference),
            "" if difference is None else f"{show(least, 'points')} to {show(most, 'points')}",
        ]
        for model, name, m, prompt_set, datasets, top1, low, high, difference, least, most
        in _average_rows(db)
    ]  # fmt: skip
    title = f"Mean over the datasets, equally weighted{run.trial}"
    table = _table_of(title, AVERAGES, lines, None if every_column else AVERAGES_FEW)
    return without_unused(table, "prompts")


def points(difference: float | None, p: float | None = None) -> str:
    """Format a difference of shares in percentage points; a star marks a significant p."""
    if difference is None:
        return ""
    return f"{'* ' if p is not None and p < LEVEL else ''}{show(difference, 'points')}"
