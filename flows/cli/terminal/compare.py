"""What `xmore compare` prints."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import yaml

from flows.cli.terminal.console import record, safe, say, show_table, wants_json
from xmore.report.leaderboard import paper_table
from xmore.report.table import Kind, Table, records
from xmore.results.compare import Comparison, Flips, PaperRow
from xmore.results.runs import Run


def show_paper(run: Run, rows: list[PaperRow]) -> None:
    """Print the paper's tables 1 and 2 next to the run's accuracies."""
    notes: dict[str, int] = {}
    record("paper", records(paper_table(run, rows)))
    for model, of_model in groupby([] if wants_json() else rows, lambda row: row.model):
        cells = [_paper_cells(row, notes) for row in of_model]
        figures = ("paper", "ours", "difference", "95 % interval", "paper in it")
        columns: list[tuple[str, Kind]] = [("dataset", "text"), ("method", "text")]
        columns += [(name, "figure") for name in figures]
        show_table(Table("paper", model, "", columns, cells))
    for text, number in notes.items():
        say(safe(f"[{number}] {text}"))
    say(
        safe(
            f"Run {run.name}{run.trial}, top-1 in %. The paper's text describes `minmax`; its "
            "authors' code has `running-sum`, which probably made its tables "
            "(data/reference/README.md)."
        )
    )


def _paper_cells(row: PaperRow, notes: dict[str, int]) -> tuple[str, ...]:
    mark = f" [{notes.setdefault(row.errata, len(notes) + 1)}]" if row.errata else ""
    return (
        row.dataset,
        row.method,
        f"{row.paper:.2f}{mark}",
        f"{row.ours:.2f}",
        f"{row.ours - row.paper:+z.2f}",
        f"{row.interval[0]:.1f} to {row.interval[1]:.1f}" if row.interval else "",
        {True: "yes", False: "no", None: ""}[row.inside],
    )


def show_comparison(a: Run, b: Run, found: Comparison) -> None:
    """Print the differences between two runs' configs and predictions."""
    say(safe(f"A = {a.name}{a.trial}, B = {b.name}{b.trial}"))
    if not found.differences:
        say("Their configs, and the sources of their methods, are the same.")
    if found.differences or wants_json():
        columns: list[tuple[str, Kind]] = [("config", "text"), ("A", "text"), ("B", "text")]
        changed = [(key, _yaml(mine), _yaml(theirs)) for key, mine, theirs in found.differences]
        show_table(Table("config", "", "", columns, changed))
    flips = flips_table(found.flips)
    show_table(flips if wants_json() or not flips.rows else flips.filled(), by=3)
    if found.examples or wants_json():
        names = (
            "dataset",
            "model",
            "flipped",
            "method",
            "M",
            "true class",
            "A predicts",
            "B predicts",
        )
        heads: list[tuple[str, Kind]] = [(n, "count" if n == "M" else "text") for n in names]
        show_table(Table("examples", "", "", heads, found.examples), by=2)
    flipped = sum(row.only_a + row.only_b for row in found.flips)
    if len(found.examples) < flipped:
        say(f"{len(found.examples)} of {flipped} flips are listed; --json has all.")
    say("points: B minus A, of an ordered method in the order of its first seed; p: two-")
    say("sided exact sign test (McNemar) over the flipped queries.")


def _yaml(value: Any) -> str:
    """Return a config's value as one would write it in the config."""
    if isinstance(value, str):
        return value
    listed = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, allow_unicode=True)
    return " ".join(listed.split())[1:-1]


def flips_table(flips: Sequence[Flips]) -> Table:
    """Return the numbers of flipped queries of each method."""
    return Table(
        "flips",
        "",
        "",
        [
            ("dataset", "text"),
            ("model", "text"),
            ("n", "count"),
            ("method", "text"),
            ("M", "count"),
            ("both right", "count"),
            ("only A", "count"),
            ("only B", "count"),
            ("points", "points"),
            ("p", "p"),
        ],
        [
            (
                *(row.dataset, row.model, row.n, row.variant, row.m),
                *(row.both, row.only_a, row.only_b, row.points, row.p),
            )
            for row in flips
        ],
    )
