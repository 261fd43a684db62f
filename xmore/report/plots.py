"""The plots of a report, one per inference model: drawn, and the same in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from xmore.report import figures
from xmore.report.colours import GREY, Styles, styles
from xmore.report.curves import Curve, by_m, confidences, reliability, similarities
from xmore.report.figures import Drawing, IntervalEstimate
from xmore.report.headline import Headline
from xmore.report.table import Table, records
from xmore.report.tables import gains
from xmore.results.runs import Run


@dataclass(frozen=True)
class Plot:
    """One figure, its caption and its description."""

    kind: str  # as in SECTIONS
    name: str  # of its file
    title: str
    note: str  # datasets, model and memory snapshot, if any
    reading: str  # what its marks are
    alt: str  # the figure in words
    drawing: Drawing


def plots(
    run: Run, db: duckdb.DuckDBPyConnection, of: Headline, found: dict[str, Table]
) -> list[Plot]:
    """Return all figures for which the run has data: one per model, one panel per dataset."""
    found = {name: _of_set(table, of) for name, table in found.items()}
    found["leaderboard"] = _untold(found["leaderboard"], run.trial)
    draw = _Drawing(run, of, styles(_mean_accuracies(found["leaderboard"])))
    return [
        *draw.each("accuracy", _estimates(found["leaderboard"], of), _accuracy),
        *draw.each("m-sweep", by_m(db, of), _by_m),
        *draw.each("confidence", confidences(db, of), _confidence),
        *draw.each("weight-ratio", _ratios(found, of), _weight_ratio),
        *draw.each("reliability", draw.in_colour(reliability(db, of)), _calibration),
        *draw.each("classes", _gains(found), _classes),
        *draw.each("retrieval", similarities(db), _similarity),
    ]


INTERVAL = "Wilson's 95 % interval"
TITLES = {  # kind: the figure's title, and what its marks are, with the headline's names
    "accuracy": ("Accuracy", f"Bars: {INTERVAL}{{at_m}}."),
    "m-sweep": ("Accuracy by number of captions M", f"Shaded: {INTERVAL} of {{name}}."),
    "confidence": (
        "Confidence and weight",
        "Of the image, and of its captions, under {full_name}.",
    ),
    "weight-ratio": ("Weight ratio", "Bars: mean; marks: median; dotted: equal weights{at_m}."),
    "reliability": (
        "Calibration",
        f"Shaded: {INTERVAL} of {{full_name}}; dotted: perfect calibration. Methods that are grey "
        "elsewhere are left out.",
    ),
    "classes": ("Classes helped and hurt most", "By {full_name}; in brackets: the class's images."),
    "retrieval": (
        "Similarity of retrieved images",
        "Line: median over the test images; shaded: the middle 80 % of them.",
    ),
}


@dataclass(frozen=True)
class _Of:
    """A value of one dataset under one model."""

    dataset: str
    model: str
    n: int
    what: Any


@dataclass(frozen=True)
class _Drawing:
    run: Run
    of: Headline
    styles: Styles

    def in_colour(self, curves: Iterable[Curve]) -> list[Curve]:
        """Return the curves that are not grey: of many jagged lines, none can be followed."""
        return [curve for curve in curves if self.styles[curve.name].colour != GREY]

    def each(
        self,
        kind: str,
        items: Iterable[Any],
        draw: Callable[[list[Any], Headline, Styles], tuple[Drawing, str]],
    ) -> Iterator[Plot]:
        """Yield one plot per model; `items` have the attributes dataset, model and n."""
        by_model: dict[str, list[Any]] = defaultdict(list)
        for item in items:
            by_model[item.model].append(item)
        for number, (model, mine) in enumerate(by_model.items(), 1):
            sizes: dict[str, int] = {}
            for item in mine:
                sizes[item.dataset] = max(item.n, sizes.get(item.dataset, 0))
            sets = ", ".join(f"{dataset} (n = {n:,})" for dataset, n in sizes.items())
            drawing, alt = draw(mine, self.of, self.styles)
            prompts = f"prompts {self.of.prompt_set}; " if self.of.prompt_set else ""
            suffix = f"-{number}" if len(by_model) > 1 else ""
            yield Plot(
                kind,
                f"{kind}{suffix}",
                TITLES[kind][0],
                f"{sets}; model {model}; {prompts}{self.run.read}{self.run.trial}",
                TITLES[kind][1].format(
                    name=self.of.name,
                    full_name=self.of.full_name,
                    at_m="" if self.of.m is None else f"; M = {self.of.m}",
                )
                + self.styles.told(_drawn(mine)),
                alt,
                drawing,
            )


def _accuracy(mine: list[_Of], of: Headline, drawn: Styles) -> tuple[Drawing, str]:
    words = "; ".join(f"{e.what.dataset} {e.what.name} {100 * e.what.value:.1f} %" for e in mine)
    return figures.accuracies([e.what for e in mine], drawn), f"Top-1 accuracy: {words}."


def _by_m(mine: list[Any], of: Headline, drawn: Styles) -> tuple[Drawing, str]:
    words = "; ".join(
        f"{c.dataset} {c.name}, M = {c.x[0]:.0f} to {c.x[-1]:.0f}: {c.y[0]:.1f} to {c.y[-1]:.1f} %"
        for c in mine
    )
    every = sorted({x for c in mine for x in c.x})
    drawing = figures.curves(mine, "M", "top-1 accuracy in %", drawn, band=of.name, ticks=every)
    return drawing, f"Top-1 accuracy over M: {words}."


def _confidence(mine: list[Any], of: Headline, drawn: Styles) -> tuple[Drawing, str]:
    words = "; ".join(
        f"{h.dataset}, {h.quantity} of the {h.modality}: most often "
        f"{h.counts.argmax() / len(h.counts):.2f}"
        for h in mine
    )
    return figures.confidences(mine), f"Histograms of {of.name}. {words}."


def _weight_ratio(mine: list[_Of], of: Headline, drawn: Styles) -> tuple[Drawing, str]:
    rows = [e.what for e in mine]
    words = "; ".join(f"{row[0]}, {row[1]}, correct: {row[2]}: mean {row[3]:.2f}" for row in rows)
    return figures.weight_ratios(rows, drawn), f"Image weight divided by text weight: {words}."


def _calibration(mine: list[Any], of: Headline, drawn: Styles) -> tuple[Drawing, str]:
    names = ", ".join(dict.fromkeys(c.name for c in mine))
    x = "probability of the prediction in %"
    drawing = figures.curves(mine, x, "accuracy in %", drawn, band=of.name, diagonal=True)
    return drawing, f"Accuracy by predicted probability, for {names}; dotted: perfect calibration."


def _classes(mine: list[_Of], of: Headline, drawn: Styles) -> tuple[Drawing, str]:
    words = "; ".join(
        f"{e.dataset}: most helped {e.what[0][0]} ({100 * e.what[0][2]:+z.1f} points), "
        f"least helped {e.what[-1][0]} ({100 * e.what[-1][2]:+z.1f})"
        for e in mine
    )
    return figures.gains([(e.dataset, e.what) for e in mine]), f"Gain over clip by class. {words}."


def _similarity(mine: list[Any], of: Headline, drawn: Styles) -> tuple[Drawing, str]:
    words = "; ".join(
        f"{c.dataset}: median {c.y[0]:.2f} at rank 1, {c.y[-1]:.2f} at rank {c.x[-1]:.0f}"
        for c in mine
    )
    drawing = figures.curves(mine, "rank", "similarity", drawn, band="similarity")
    return drawing, f"Similarity of the coarse neighbours by rank. {words}."


def _drawn(items: list[Any]) -> list[str]:
    """Return the names of what a plot draws, if these are methods."""
    found = (getattr(getattr(item, "what", item), "name", None) for item in items)
    return [name for name in found if name is not None]


def _mean_accuracies(leaderboard: Table) -> dict[str, float]:
    """Map each method and adjustment, in the leaderboard's order, to its mean top-1."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in records(leaderboard):
        values[row["method"]].append(row["top1"])
    return {name: sum(each) / len(each) for name, each in values.items()}


def _untold(leaderboard: Table, trial: str) -> Table:
    """Return the leaderboard by the datasets' own names, as the other tables have them."""
    rows = [(row[0].removesuffix(trial), *row[1:]) for row in leaderboard.rows]
    return replace(leaderboard, rows=rows)


def _estimates(leaderboard: Table, of: Headline) -> list[_Of]:
    found, sizes = [], _sizes(leaderboard)
    for dataset, model, n, name, m, top1, low, high, *_ in leaderboard.rows:
        if m is None or m == of.m:
            most = sizes[dataset, model]
            label = name if n == most else f"{name} (n = {n})"
            found.append(
                _Of(dataset, model, most, IntervalEstimate(dataset, label, top1, low, high))
            )
    return found


def _of_set(table: Table, of: Headline) -> Table:
    """Return the rows of the headline's prompt set, without the column that names it."""
    names = [name for name, _ in table.columns]
    if table.name == "prompt_sets" or "prompts" not in names:
        return table
    at = names.index("prompts")
    rows = [row for row in table.rows if row[at] == of.prompt_set]
    return replace(table, rows=rows).without("prompts")


def _sizes(leaderboard: Table) -> dict[tuple[Any, ...], int]:
    """Map (dataset, model) to the number of test images of the method with the most predictions."""
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
