"""What `xmore leaks` prints."""

from __future__ import annotations

from collections.abc import Sequence

from flows.cli.terminal.console import console, safe, say, show_table, table_of
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
from xmore.results.leaks import Report

LISTED = 10  # test images per dataset in the terminal; the HTML page has more


def show_reports(reports: Sequence[Report]) -> None:
    """Print the number of leaks, the first pairs, and the accuracies with and without them."""
    space, threshold = reports[0].space, reports[0].threshold
    say(safe(f"near: a similarity of at least {threshold:g} under {space}"))
    table = table_of(*COUNTS)
    for report in reports:
        table.add_row(*map(safe, counts(report)))
    show_table(table)
    if not all(report.told for report in reports):
        say(UNTOLD)
    if not any(report.leaked for report in reports):
        say("No test image is in the memory.")
    for report in reports:
        if report.leaked:
            _show_pairs(report)
            _show_accuracies(report)


def _show_pairs(report: Report) -> None:
    table = table_of("similarity", "test image", "memory_id", "caption", first_columns_left=0)
    for column in (table.columns[1], table.columns[3]):
        column.justify = "left"
    listed = report.pairs[:LISTED]
    room = max(20, console.width - 30 - max(len(pair.uri) for pair in listed))
    for pair in listed:
        shown = similarity(pair) if pair.kind == NEAR else pair.kind
        table.add_row(shown, safe(pair.uri), str(pair.memory_id), safe(_short(pair.caption, room)))
    table.title = safe(f"{report.dataset}: test images and their most similar memory rows")
    show_table(table)
    if report.leaked > LISTED:
        say(f"... and {report.leaked - LISTED} more\n")


def _short(text: str, room: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= room else text[: room - 1] + "…"


def _show_accuracies(report: Report) -> None:
    table = table_of(*accuracy_head(report), first_columns_left=2)
    for row in report.accuracies:
        table.add_row(*map(safe, accuracy_cells(row)))
    table.title = safe(f"{report.dataset}: top-1 %, mean over the seeds")
    show_table(table)
    for line in LEGEND:
        say(line)
