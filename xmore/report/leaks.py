"""`xmore leaks --html`: a page with the pairs of images, and the cells of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xmore.files.paths import write_whole
from xmore.files.progress import track
from xmore.report.html import inline, render
from xmore.report.pictures import pictures_of
from xmore.results.leaks import Accuracy, Pair, Report
from xmore.results.runs import Run

COUNTS = ("dataset", "queries", "same bytes", "near", "in the memory", "share %")
UNTOLD = (
    "Rows of a clip-retrieval folder have no hashes of their images: same bytes stay unnoticed."
)
LEGEND = (
    "of them: the same predictions, without those for leaked queries.",
    "alone: as if leaked queries had never been in the stream. Its orders are drawn",
    "again, so that ordered adjustments also vary by chance, about as much as the",
    "leaderboard's `± seeds`.",
)


def counts(report: Report) -> list[str]:
    """Return a row of the table with the head COUNTS."""
    same = str(report.same) if report.told else f"≥ {report.same}"
    share = f"{100 * report.leaked / report.n:.1f}"
    return [report.dataset, str(report.n), same, str(report.near), str(report.leaked), share]


def accuracy_head(report: Report) -> tuple[str, ...]:
    """Return the head of a report's table of accuracies."""
    kept = report.n - report.leaked
    return ("model", "method", "M", f"all {report.n}", f"{kept} of them", f"{kept} alone")


def accuracy_cells(row: Accuracy) -> list[str]:
    """Return a row of that table, in percent."""
    shares = (row.all, row.counted, row.alone)
    percent = ["" if share is None else f"{100 * share:.1f}" for share in shares]
    return [row.model, row.method, "" if row.m is None else str(row.m), *percent]


def similarity(pair: Pair) -> str:
    """Format a pair's similarity; empty if a row with the same bytes was no candidate."""
    return "" if pair.similarity is None else f"{pair.similarity:.3f}"


def write_leaks_page(run: Run, reports: Sequence[Report], path: Path) -> None:
    """Write the reports as one HTML file that embeds its images."""
    drawn = []
    for report in reports:
        with pictures_of(run, report.dataset) as pictures:
            ids = {pair.memory_id for pair in report.pairs}
            found = {i: inline(data) for i, data in pictures.memory(ids)}
            drawn.append(
                [
                    (pair, inline(pictures.query(pair.uri)), found.get(pair.memory_id))
                    for pair in track(report.pairs, f"{report.dataset} images", "pair")
                ]
            )
    page = render(
        "leaks.html",
        run=run.name,
        snapshot=run.snapshot_name,
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
