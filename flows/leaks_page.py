"""`xmore leaks` shows: tables in the terminal, and a page with the pairs as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.explain import inline, render
from flows.leaks import Accuracy, Pair, Report
from flows.pictures import pictures_of
from flows.show import console, safe, say, show_table, table_of
from xmore.leaks import NEAR
from xmore.paths import write_whole
from xmore.progress import track
from xmore.runs import Run

LISTED = 10  # test images of a dataset in the terminal; the page has more
COUNTS = ("dataset", "queries", "same bytes", "near", "in the memory", "share %")
UNTOLD = (
    "Rows of a clip-retrieval folder have no hashes of their images: same bytes go unseen there."
)
LEGEND = (
    "of them: the same answers, those to the leaked queries not counted.",
    "alone: as if the leaked had never been in the stream. Its orders are drawn anew, so that the",
    "ordered adjustments also move by chance, about as much as the leaderboard's `± seeds`.",
)


def show_reports(reports: Sequence[Report]) -> None:
    """Print how many, the first of them, and what they are worth in accuracy."""
    space, threshold = reports[0].space, reports[0].threshold
    say(safe(f"near: a similarity of {threshold:g} or more to {space}"))
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


def counts(report: Report) -> list[str]:
    """A row of the table whose head is COUNTS."""
    same = str(report.same) if report.told else f"≥ {report.same}"
    share = f"{100 * report.leaked / report.n:.1f}"
    return [report.dataset, str(report.n), same, str(report.near), str(report.leaked), share]


def accuracy_head(report: Report) -> tuple[str, ...]:
    """The head of the table of a report's accuracies."""
    kept = report.n - report.leaked
    return ("model", "method", "M", f"all {report.n}", f"{kept} of them", f"{kept} alone")


def accuracy_cells(row: Accuracy) -> list[str]:
    """A row of that table, in percent."""
    shares = (row.all, row.counted, row.alone)
    percent = ["" if share is None else f"{100 * share:.1f}" for share in shares]
    return [row.model, row.method, "" if row.m is None else str(row.m), *percent]


def similarity(pair: Pair) -> str:
    """As text; none where a row of the same bytes was no candidate."""
    return "" if pair.similarity is None else f"{pair.similarity:.3f}"


def _show_pairs(report: Report) -> None:
    table = table_of("similarity", "test image", "memory_id", "caption", first_columns_left=0)
    for column in (table.columns[1], table.columns[3]):
        column.justify = "left"
    listed = report.pairs[:LISTED]
    room = max(20, console.width - 30 - max(len(pair.uri) for pair in listed))
    for pair in listed:
        shown = similarity(pair) if pair.kind == NEAR else pair.kind
        table.add_row(shown, safe(pair.uri), str(pair.memory_id), safe(_short(pair.caption, room)))
    table.title = safe(f"{report.dataset}: test images and the memory rows most like them")
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


def write_leaks_page(run: Run, reports: Sequence[Report], path: Path) -> None:
    """Write the reports as one HTML file with the pictures inside."""
    drawn = []
    for report in reports:
        with pictures_of(run, report.dataset) as pictures:
            ids = {pair.memory_id for pair in report.pairs}
            found = {i: inline(data) for i, data in pictures.memory(ids)}
            drawn.append(
                [
                    (pair, inline(pictures.query(pair.uri)), found.get(pair.memory_id))
                    for pair in track(report.pairs, f"{report.dataset} pictures", "pair")
                ]
            )
    page = render(
        "leaks.html",
        run=run.name,
        snapshot=run.snapshot["name"],
        counts_head=COUNTS,
        legend=" ".join(LEGEND),
        untold="" if all(report.told for report in reports) else UNTOLD,
        reports=[
            {
                "report": report,
                "counts": counts(report),
                "pairs": pairs,
                "head": accuracy_head(report),
                "accuracies": [accuracy_cells(row) for row in report.accuracies],
            }
            for report, pairs in zip(reports, drawn, strict=True)
        ],
    )
    write_whole(path, page.encode())
