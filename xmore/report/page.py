"""`xmore report`: a run as one page that needs no network, with plots and tables as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml

from xmore.files.errors import RunError
from xmore.files.paths import check_writable, where, write_whole
from xmore.files.progress import counting
from xmore.report.figures import INK
from xmore.report.gallery import EVERYTHING, Shown, examples, gallery
from xmore.report.headline import Headline, headline, summary
from xmore.report.html import TEMPLATES, render
from xmore.report.plots import Plot, plots
from xmore.report.table import Table, as_csv, as_markdown, show
from xmore.report.tables import tables
from xmore.results.absent import left_out
from xmore.results.runs import Run
from xmore.results.views import open_views

# Long tables, shown on demand.
FOLDED = ("comparisons", "by_class", "weight_ratios", "entropies", "model_comparisons")
SECTIONS = {  # id: title, introduction, plots, tables
    "accuracy": (
        "Accuracy",
        "The accuracy of each method, with its uncertainty.",
        ("accuracy", "m-sweep"),
        ("leaderboard", "hyperparameters", "averages", "paper"),
    ),
    "recall": (
        "Recall",
        "The models on images and their captions: no memory and no method takes part.",
        (),
        ("recalls", "model_comparisons"),
    ),
    "certainty": (
        "Statistical significance",
        "All methods classify the same images, so two methods are compared image by image.",
        (),
        ("resolution", "prompt_sets", "comparisons"),
    ),
    "weights": (
        "Confidences and weights",
        "Each modality is weighted by its confidence, after adjustment over the stream.",
        ("confidence", "weight-ratio"),
        ("weight_ratios", "entropies"),
    ),
    "reliability": (
        "Calibration",
        "The share of correct predictions, by their probability.",
        ("reliability",),
        (),
    ),
    "classes": (
        "By class",
        "The classes helped and hurt, compared with clip. With few images per class, read this "
        "with care.",
        ("classes",),
        ("by_class",),
    ),
    "retrieval": (
        "Retrieval",
        "The nearest memory images, whose captions are scored.",
        ("retrieval",),
        ("retrieval",),
    ),
}
XML = '<?xml version="1.0" encoding="utf-8"?>\n'  # first line of an SVG file
SCRIPT = TEMPLATES / "report.js"


def write_report(run: Run, folder: Path, shown: Shown = EVERYTHING) -> Path:
    """Write `report.html`, `figures/*.{svg,pdf}` and `tables/*.{csv,md}`; returns the page's path.

    Its examples have the captions and images that `shown` says; without either there are none, nor
    of a run whose scores were left out when it was packed. Memory: the images of at most EXAMPLES
    queries, about 10 MB. Raises RunError, at once if the page cannot be written.
    """
    if run.status != "completed":
        raise RunError(f"run {run.name} is {run.status}: only a completed one can be reported.")
    page = folder / "report.html"
    try:
        check_writable(page)
    except OSError as error:
        raise RunError(
            f"{page}: cannot be written ({error.strerror}). Name another folder: `xmore report "
            f"{run.name} --output FOLDER{where(run.results)}`."
        ) from error
    db = open_views(run)
    of = headline(db)
    with counting("report", 3, "part") as done:  # tables, plots, and the page
        found = tables(run, db, of)
        done(1)
        drawn = plots(run, db, of, {table.name: table for table in found}) if of else []
        done(2)
        for table in found:
            write_whole(folder / "tables" / f"{table.name}.csv", as_csv(table).encode())
            write_whole(folder / "tables" / f"{table.name}.md", as_markdown(table).encode())
        for plot in drawn:
            svg, pdf = f"{XML}{plot.drawing.svg}".encode(), plot.drawing.pdf
            write_whole(folder / "figures" / f"{plot.name}.svg", svg)
            write_whole(folder / "figures" / f"{plot.name}.pdf", pdf)
        script = SCRIPT.read_text(encoding="utf-8")
        html = render(
            "report.html",
            run=run,
            started=show(run.started, "time"),
            summary=summary(db, of),
            sections=list(_sections(found, drawn)),
            stages=next(table for table in found if table.name == "stages"),
            config=yaml.safe_dump(run.config, sort_keys=False),
            gallery=_gallery(run, db, of, shown),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            ink=INK,
        )
        write_whole(page, html.encode())
        return page


@dataclass(frozen=True)
class ReportSection:
    """A section of the page: its plots, and its tables with a flag for folded ones."""

    id: str
    title: str
    intro: str
    plots: list[Plot]
    tables: list[tuple[Table, bool]]


def _gallery(
    run: Run, db: duckdb.DuckDBPyConnection, of: Headline | None, shown: Shown
) -> dict[str, Any] | None:
    """Return the examples; None if none are wanted, or if a run has no methods or lacks scores."""
    if of is None or not (shown.captions or shown.images) or "scores" in left_out(run):
        return None
    return gallery(run, examples(db, of, captions=run.snapshot is not None), of, shown)


def _sections(found: list[Table], drawn: list[Plot]) -> Iterator[ReportSection]:
    """Yield the sections that have a plot or a table."""
    for name, (title, intro, plot_names, table_names) in SECTIONS.items():
        mine = [plot for plot in drawn if plot.kind in plot_names]
        listed = [(t, t.name in FOLDED) for t in found if t.name in table_names]
        if mine or listed:
            yield ReportSection(name, title, intro, mine, listed)
