"""What `xmore leaks` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from flows.cli.terminal.console import cut, record, safe, say, show_table, wants_json
from xmore.memory.leaks import NEAR
from xmore.report.leaks import (
    COUNTS,
    LEGEND,
    UNTOLD,
    accuracy_cells,
    accuracy_head,
    counts,
    similarity,
)
from xmore.report.table import Kind, Table
from xmore.results.leaks import Report

LISTED = 10  # test images per dataset in the terminal; the HTML page has more


def show_reports(reports: Sequence[Report]) -> None:
    """Print the number of leaks, the first pairs, and the accuracies with and without them."""
    for report in reports:
        _record(report)
    space, threshold = reports[0].space, reports[0].threshold
    say(safe(f"near: a similarity of at least {threshold:g} under {space}"))
    _show("", COUNTS, [counts(report) for report in reports], texts=1)
    if not all(report.told for report in reports):
        say(UNTOLD)
    if not any(report.leaked for report in reports):
        say("No test image is in the memory.")
    for report in reports:
        if report.leaked:
            _show_pairs(report)
            _show_accuracies(report)


def _record(report: Report) -> None:
    """Add a report's numbers, pairs and accuracies to the JSON."""
    of = {"dataset": report.dataset}
    numbers = asdict(report)
    pairs, accuracies = numbers.pop("pairs"), numbers.pop("accuracies")
    record("leaks", [numbers])
    record("pairs", (of | pair for pair in pairs))
    record("accuracies", (of | row for row in accuracies))


def _show(title: str, names: Sequence[str], rows: list[list[str]], texts: int) -> None:
    """Show rows that are formatted already, the first `texts` columns as text."""
    columns: list[tuple[str, Kind]] = [
        (name, "text" if i < texts else "figure") for i, name in enumerate(names)
    ]
    if not wants_json():
        show_table(Table("leaks", title, "", columns, list(map(tuple, rows))))


def _show_pairs(report: Report) -> None:
    listed = report.pairs[:LISTED]
    taken = 30 + max(len(pair.uri) for pair in listed)
    title = f"{report.dataset}: test images and their most similar memory rows"
    columns: list[tuple[str, Kind]] = [
        ("similarity", "figure"),
        ("test image", "text"),
        ("memory_id", "figure"),
        ("caption", "text"),
    ]
    rows = [
        (
            similarity(pair) if pair.kind == NEAR else pair.kind,
            pair.uri,
            pair.memory_id,
            cut(pair.caption, taken),
        )
        for pair in listed
    ]
    if not wants_json():
        show_table(Table("pairs", title, "", columns, rows))
    if report.leaked > LISTED:
        say(f"... and {report.leaked - LISTED} more\n")


def _show_accuracies(report: Report) -> None:
    lines = [accuracy_cells(row) for row in report.accuracies]
    title = f"{report.dataset}: top-1 %, mean over the seeds"
    _show(title, accuracy_head(report), lines, texts=2)
    for line in LEGEND:
        say(line)
