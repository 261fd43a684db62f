"""`xmore report`: a run as one page that needs no network; plots as SVG, tables as files."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml

from flows.explain import inline, render
from flows.pictures import pictures_of
from xmore import figures
from xmore.errors import RunError
from xmore.figures import INK, Estimate
from xmore.gallery import Example, case_names, examples
from xmore.paths import write_whole
from xmore.progress import track
from xmore.report import (
    Headline,
    Table,
    by_m,
    confidences,
    gains,
    headline,
    reliability,
    similarities,
    summary,
    tables,
)
from xmore.runs import Run
from xmore.views import open_views

QUERY_SIDE, MEMORY_SIDE = 176, 112  # pixels of a picture's longer side
FOLDED = ("comparisons", "by_class", "weight_ratios", "entropies")  # long tables, shown on demand
SECTIONS = {  # id: title, what it is about, its plots, its tables
    "accuracy": (
        "Accuracy",
        "What each method answers rightly, and how sure that is.",
        ("accuracy", "m-sweep"),
        ("leaderboard", "hyperparameters", "averages", "paper"),
    ),
    "certainty": (
        "Chance or not",
        "Two methods answer the same images, so they are compared image by image.",
        (),
        ("resolution", "comparisons"),
    ),
    "weights": (
        "How it decides",
        "Each modality is weighted by its confidence, after adjustment over the stream.",
        ("confidence", "weight-ratio"),
        ("weight_ratios", "entropies"),
    ),
    "reliability": (
        "What a probability is worth",
        "Of the answers given with some probability, the share that is right.",
        ("reliability",),
        (),
    ),
    "classes": (
        "By class",
        "Where captions help, and where they hurt. Few images a class: read with care.",
        ("classes",),
        ("by_class",),
    ),
    "retrieval": (
        "What was retrieved",
        "The neighbours in the memory whose captions were asked.",
        ("retrieval",),
        ("retrieval",),
    ),
}
XML = '<?xml version="1.0" encoding="utf-8"?>\n'  # begins an SVG that is a file of its own
SCRIPT = Path(__file__).with_name("report.js")


@dataclass(frozen=True)
class Plot:
    """One figure: which of SECTIONS', what is to be seen, of what, the same in words, the SVG."""

    kind: str
    name: str  # of its file
    title: str
    note: str
    alt: str
    svg: str


def write_report(run: Run, folder: Path) -> Path:
    """Write `report.html`, `figures/*.svg` and `tables/*.{csv,md}`; returns the page's path.

    Holds the pictures of at most EXAMPLES queries, about 10 MB. Raises RunError.
    """
    if run.status != "completed":
        raise RunError(f"run {run.name} is {run.status}: only a completed one can be reported.")
    db = open_views(run)
    of = headline(db)
    found = tables(run, db, of)
    drawn = plots(run, db, of, {table.name: table for table in found})
    for table in found:
        write_whole(folder / "tables" / f"{table.name}.csv", _csv(table).encode())
        write_whole(folder / "tables" / f"{table.name}.md", _markdown(table).encode())
    for plot in drawn:
        write_whole(folder / "figures" / f"{plot.name}.svg", f"{XML}{plot.svg}".encode())
    script = SCRIPT.read_text(encoding="utf-8")
    page = render(
        "report.html",
        run=run,
        summary=summary(db, of),
        sections=list(_sections(found, drawn)),
        stages=next(table for table in found if table.name == "stages"),
        config=yaml.safe_dump(run.config, sort_keys=False),
        gallery=gallery(run, examples(db, of), of),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        ink=INK,
    )
    write_whole(folder / "report.html", page.encode())
    return folder / "report.html"


@dataclass(frozen=True)
class Section:
    """A part of the page: its plots and tables, and whether a table is folded away."""

    id: str
    title: str
    intro: str
    plots: list[Plot]
    tables: list[tuple[Table, bool]]


def _sections(found: list[Table], drawn: list[Plot]) -> Iterator[Section]:
    """The sections that have something to show."""
    for name, (title, intro, plot_names, table_names) in SECTIONS.items():
        mine = [plot for plot in drawn if plot.kind in plot_names]
        listed = [(t, t.name in FOLDED) for t in found if t.name in table_names]
        if mine or listed:
            yield Section(name, title, intro, mine, listed)


def plots(
    run: Run, db: duckdb.DuckDBPyConnection, of: Headline, found: dict[str, Table]
) -> list[Plot]:
    """All figures that the run has data for; one an inference model, a panel a dataset."""
    draw = _Drawing(run, of)
    return [
        *draw.each("accuracy", "Accuracy", _estimates(found["leaderboard"], of), _accuracy),
        *draw.each("m-sweep", "Accuracy by number of captions M", by_m(db), _by_m),
        *draw.each("confidence", "Confidence and weight", confidences(db, of), _confidence),
        *draw.each("weight-ratio", "Who is trusted when", _ratios(found, of), _weight_ratio),
        *draw.each("reliability", "What a probability is worth", reliability(db, of), _calibration),
        *draw.each("classes", "Classes helped and hurt most", _gains(found), _classes),
        *draw.each("retrieval", "Similarity of what was retrieved", similarities(db), _similarity),
    ]


@dataclass(frozen=True)
class _Of:
    """Something of one dataset under one model."""

    dataset: str
    model: str
    n: int
    what: Any


@dataclass(frozen=True)
class _Drawing:
    run: Run
    of: Headline

    def each(
        self,
        kind: str,
        title: str,
        items: Iterable[Any],
        draw: Callable[[list[Any], Headline], tuple[str, str]],
    ) -> Iterator[Plot]:
        """A plot for each model among `items`, which name dataset, model and n."""
        by_model: dict[str, list[Any]] = defaultdict(list)
        for item in items:
            by_model[item.model].append(item)
        for number, (model, mine) in enumerate(by_model.items(), 1):
            sizes = {item.dataset: item.n for item in mine}
            sets = ", ".join(f"{dataset} (n = {n:,})" for dataset, n in sizes.items())
            svg, alt = draw(mine, self.of)
            suffix = f"-{number}" if len(by_model) > 1 else ""
            yield Plot(
                kind,
                f"{kind}{suffix}",
                title,
                f"{sets}; model {model}; memory snapshot {self.run.snapshot['name']}",
                alt,
                svg,
            )


def _accuracy(mine: list[_Of], of: Headline) -> tuple[str, str]:
    said = "; ".join(f"{e.what.dataset} {e.what.name} {100 * e.what.value:.1f} %" for e in mine)
    return figures.accuracies([e.what for e in mine]), f"Top-1 accuracy: {said}."


def _by_m(mine: list[Any], of: Headline) -> tuple[str, str]:
    said = "; ".join(
        f"{c.dataset} {c.name}, M = {c.x[0]:.0f} to {c.x[-1]:.0f}: "
        f"{100 * c.y[0]:.1f} to {100 * c.y[-1]:.1f} %"
        for c in mine
    )
    return figures.curves(
        mine, "M", "top-1 accuracy", band=of.name
    ), f"Top-1 accuracy over M: {said}."


def _confidence(mine: list[Any], of: Headline) -> tuple[str, str]:
    said = "; ".join(
        f"{h.dataset}, {h.quantity} of the {h.modality}: most often "
        f"{h.counts.argmax() / len(h.counts):.2f}"
        for h in mine
    )
    return figures.confidences(mine), f"Histograms of {of.name}. {said}."


def _weight_ratio(mine: list[_Of], of: Headline) -> tuple[str, str]:
    rows = [e.what for e in mine]
    said = "; ".join(f"{row[0]}, {row[1]}, right is {row[2]}: mean {row[3]:.2f}" for row in rows)
    return figures.weight_ratios(rows), f"Weight of the image over that of its captions: {said}."


def _calibration(mine: list[Any], of: Headline) -> tuple[str, str]:
    names = ", ".join(dict.fromkeys(c.name for c in mine))
    svg = figures.curves(mine, "probability of the answer", "accuracy", band=of.name, diagonal=True)
    return svg, f"Accuracy by the probability that was given, of {names}; dotted: well calibrated."


def _classes(mine: list[_Of], of: Headline) -> tuple[str, str]:
    said = "; ".join(
        f"{e.dataset}: most helped {e.what[0][0]} ({100 * e.what[0][2]:+.1f} points), "
        f"last {e.what[-1][0]} ({100 * e.what[-1][2]:+.1f})"
        for e in mine
    )
    return figures.gains([(e.dataset, e.what) for e in mine]), f"Gain over clip by class. {said}."


def _similarity(mine: list[Any], of: Headline) -> tuple[str, str]:
    said = "; ".join(
        f"{c.dataset}: median {c.y[0]:.2f} at rank 1, {c.y[-1]:.2f} at rank {c.x[-1]:.0f}"
        for c in mine
    )
    svg = figures.curves(mine, "rank", "similarity (middle 80 %)", band="similarity")
    return svg, f"Similarity of the coarse neighbours by rank. {said}."


def _estimates(leaderboard: Table, of: Headline) -> list[_Of]:
    found, sizes = [], _sizes(leaderboard)
    for dataset, model, n, name, m, top1, low, high, *_ in leaderboard.rows:
        if m is None or m == of.m:
            most = sizes[dataset, model]
            label = name if n == most else f"{name} (n = {n})"
            found.append(_Of(dataset, model, most, Estimate(dataset, label, top1, low, high)))
    return found


def _sizes(leaderboard: Table) -> dict[tuple[Any, ...], int]:
    """Dataset and model -> number of test images, of the method that answered most."""
    return {row[:2]: row[2] for row in sorted(leaderboard.rows, key=lambda row: row[2])}


def _ratios(found: dict[str, Table], of: Headline) -> list[_Of]:
    table = found.get("weight_ratios")
    sizes = _sizes(found["leaderboard"])
    return [
        _Of(dataset, model, sizes[dataset, model], (dataset, adjustment, case, mean, median))
        for dataset, model, m, adjustment, case, _, _, _, mean, median in (
            table.rows if table else []
        )
        if m == of.m and mean is not None
    ]


def _gains(found: dict[str, Table]) -> list[_Of]:
    table = found.get("by_class")
    sizes = _sizes(found["leaderboard"])
    return [
        _Of(dataset, model, sizes[dataset, model], classes)
        for dataset, model, classes in (gains(table) if table else [])
        if classes
    ]


def gallery(run: Run, found: list[Example], of: Headline) -> dict[str, Any]:
    """The examples as JSON: each picture once, however many queries retrieved it."""
    by_dataset: dict[str, list[Example]] = defaultdict(list)
    for example in found:
        by_dataset[example.dataset].append(example)
    cards: list[dict[str, Any]] = []
    pictures: dict[int, str | None] = {}
    for dataset, mine in by_dataset.items():
        with pictures_of(run, dataset) as source:
            for example in track(mine, f"{dataset} pictures", "image"):
                cards.append(_card(example, inline(source.query(example.uri), QUERY_SIDE)))
            ids = {row[0] for example in mine for row in example.captions} - pictures.keys()
            for i, data in track(source.memory(ids), "memory pictures", "image", len(ids)):
                pictures[i] = inline(data, MEMORY_SIDE)
    return {
        "method": of.name,
        "m": of.m,
        "cases": list(case_names(of)),
        "pictures": {str(i): picture for i, picture in pictures.items() if picture},
        "cards": cards,
    }


def _card(example: Example, picture: str | None) -> dict[str, Any]:
    return {
        "dataset": example.dataset,
        "id": example.query_id,
        "uri": example.uri,
        "label": example.label,
        "image": picture,
        "captions": [[i, round(similar, 3), text] for i, similar, text in example.captions],
        "views": {
            model: {
                "image": [[name, round(p, 3)] for name, p in view.image],
                "text": [[name, round(p, 3)] for name, p in view.text],
                "weights": view.weights and [round(weight, 3) for weight in view.weights],
                "answers": [
                    [method, m, name, None if p is None else round(p, 3), right]
                    for method, m, name, p, right in view.answers
                ],
                "cases": view.cases,
            }
            for model, view in example.views.items()
        },
    }


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(name for name, _ in table.columns)
    writer.writerows(table.rows)
    return out.getvalue()


def _markdown(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"

    names = line(name for name, _ in table.columns)
    rule = line("---" if kind == "text" else "---:" for _, kind in table.columns)
    rows = "\n".join(map(line, table.shown()))
    return f"**{table.title}.** {_escaped(table.note)}\n\n{names}\n{rule}\n{rows}\n"


def _escaped(text: str) -> str:
    """Text for a cell of Markdown: on one line, and no HTML, link or column of its own."""
    for char in "\\`*_[]<>|&":
        text = text.replace(char, f"&#{ord(char)};" if char in "<>&|" else f"\\{char}")
    return " ".join(text.split())
