"""The figures of a report, each an SVG, and a PDF that can be used in a paper.

Lines and texts have one neutral colour, INK, which a page may replace by its own. Texts stay texts.
The functions depend only on their arguments.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xmore.report.colours import COLOURS, Styles
from xmore.report.curves import BINS, Curve, Histogram

INK = "#222222"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "xmore",
    "pdf.fonttype": 42,  # conferences refuse the default, type 3
    "text.parse_math": False,  # a class name may be "$100"
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}
WIDTH, PANEL = 9.0, 2.6  # inches
LEGEND_COLUMNS = 3  # as many as a screen of 400 pixels shows
MANY = 12  # maximum number of panels of a figure, so that it stays readable


@dataclass(frozen=True)
class Drawing:
    """A figure as a page takes it, and as a paper does."""

    svg: str
    pdf: bytes


@dataclass(frozen=True)
class IntervalEstimate:
    """An accuracy, or a difference of accuracies, with its interval."""

    dataset: str
    name: str
    value: float
    low: float
    high: float


def accuracies(found: Sequence[IntervalEstimate], styles: Styles) -> Drawing:
    """Draw dots with intervals: one row per dataset, or, of a single one, a row per method."""
    datasets = list(dict.fromkeys(one.dataset for one in found))
    names = list(dict.fromkeys(one.name for one in found))
    height = 0.9 + len(datasets) * (0.18 * len(names) + 0.25)
    step, alone = 0.8 / len(names), len(datasets) == 1
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        for i, name in enumerate(names):
            mine = [one for one in found if one.name == name]
            value = 100 * np.array([one.value for one in mine])
            ends = 100 * np.array([[one.low, one.high] for one in mine]).T
            rows = np.array([datasets.index(one.dataset) for one in mine])
            axes.errorbar(
                value,
                rows + (i - (len(names) - 1) / 2) * step,
                xerr=np.abs(ends - value),
                fmt=styles[name].mark,
                markersize=4,
                elinewidth=1.5,
                color=styles[name].colour,
                label=name,
            )
        if alone:
            axes.set_yticks((np.arange(len(names)) - (len(names) - 1) / 2) * step, names)
            axes.set_title(datasets[0])
        else:
            axes.set_yticks(range(len(datasets)), datasets)
        axes.set_ylim(len(datasets) - 0.5, -0.5)
        axes.set_xlabel("top-1 accuracy in %, with 95 % interval")
        axes.grid(axis="x", alpha=0.25)
        if not alone:
            _legend(figure)
        return _drawn(figure)


def confidences(found: Sequence[Histogram]) -> Drawing:
    """Draw two panels per dataset: confidences, and the weights after adjustment."""
    rows = list(dict.fromkeys(one.dataset for one in found))[: MANY // 2]
    edges = np.linspace(0, 1, BINS + 1)
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, PANEL * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), 2, squeeze=False, sharex=True)
        for line, dataset in zip(grid, rows, strict=True):
            for axes, quantity in zip(line, ("confidence", "weight"), strict=True):
                for one in found:
                    if (one.dataset, one.quantity) == (dataset, quantity):
                        colour = COLOURS[one.modality]
                        share = 100 * one.counts / max(one.n, 1)
                        axes.stairs(share, edges, fill=True, alpha=0.3, color=colour)
                        axes.stairs(share, edges, color=colour, label=one.modality)
                axes.set_title(f"{dataset}: {quantity}")
                axes.set_ylabel("% of images")
        grid[-1][0].set_xlabel("confidence, before adjustment")
        grid[-1][1].set_xlabel("weight, after adjustment")
        _legend(figure)
        return _drawn(figure)


def weight_ratios(found: Sequence[tuple[str, str, str, float, float]], styles: Styles) -> Drawing:
    """Draw bars of the mean ratio with a mark at the median.

    The rows are dataset, adjustment, case, mean and median.
    """
    datasets = list(dict.fromkeys(row[0] for row in found))[:MANY]
    adjustments = list(dict.fromkeys(row[1] for row in found))
    cases = list(dict.fromkeys(row[2] for row in found))
    with mpl.rc_context(STYLE):
        figure, panels = _by_dataset(datasets)
        for axes, dataset in zip(panels, datasets, strict=True):
            for i, adjustment in enumerate(adjustments):
                mine = {row[2]: row[3:] for row in found if row[:2] == (dataset, adjustment)}
                present = [j for j, case in enumerate(cases) if case in mine]
                shift = (i - (len(adjustments) - 1) / 2) * 0.8 / len(adjustments)
                place = np.array(present) + shift
                mean, median = np.array([mine[cases[j]] for j in present]).reshape(-1, 2).T
                colour = styles[f"xmore {adjustment}"].colour
                width = 0.75 / len(adjustments)
                axes.bar(place, mean, width, color=colour, label=adjustment, alpha=0.8)
                axes.plot(place, median, "_", color=INK, markersize=50 * width)
            axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
            axes.set_xticks(range(len(cases)), [case.replace(" ", "\n", 1) for case in cases])
            axes.set_title(dataset)
            axes.set_xlabel("correct modality")
            axes.set_ylabel("image weight / text weight")
        _legend(figure)
        return _drawn(figure)


def curves(
    found: Sequence[Curve],
    x: str,
    y: str,
    styles: Styles,
    *,
    band: str,
    diagonal: bool = False,
    ticks: Sequence[float] = (),
) -> Drawing:
    """Draw curves, one panel per dataset; only the curve named `band` has its band.

    With `diagonal` both axes are in %, and the diagonal is drawn. `ticks` are the only x, on a
    logarithmic axis.
    """
    datasets = list(dict.fromkeys(curve.dataset for curve in found))[:MANY]
    names = list(dict.fromkeys(curve.name for curve in found))
    with mpl.rc_context(STYLE):
        figure, panels = _by_dataset(datasets)
        for axes, dataset in zip(panels, datasets, strict=True):
            if diagonal:
                axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=":")
            for curve in found:
                if curve.dataset == dataset:
                    colour, mark = styles[curve.name].colour, styles[curve.name].mark
                    axes.plot(
                        *(curve.x, curve.y, f"{mark}-"),
                        color=colour,
                        markersize=3,
                        label=curve.name,
                        zorder=1 + (mark == "o"),
                    )
                    if curve.name == band:
                        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15)
            axes.set_title(f"{dataset}, n = {max(c.n for c in found if c.dataset == dataset):,}")
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.grid(alpha=0.25)
            if len(ticks):
                axes.set_xscale("log", base=2)
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        if len(names) > 1:
            _legend(figure)
        return _drawn(figure)


def gains(found: Sequence[tuple[str, list[tuple[str, int, float]]]]) -> Drawing:
    """Draw bars of the classes helped or hurt most: dataset, then (class, n, gain) of each."""
    found = found[: MANY // 2]
    height = 0.8 + 0.19 * max(len(classes) for _, classes in found)
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(found), 2, height)
        for axes, (dataset, classes) in zip(panels, found, strict=True):
            gain = 100 * np.array([each[2] for each in classes])
            colours = [COLOURS["equal"] if value > 0 else "#c45c5c" for value in gain]
            axes.barh(range(len(classes)), gain, color=colours)
            axes.set_yticks(range(len(classes)), [f"{name[:28]} ({n})" for name, n, _ in classes])
            axes.set_ylim(len(classes) - 0.5, -0.5)
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.set_title(dataset)
            axes.set_xlabel("points to clip")
        return _drawn(figure)


def _panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` > 0 panels of `height` inches, at most `columns` in a row."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = Figure((WIDTH, height * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).reshape(-1)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def _by_dataset(datasets: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per dataset; a single panel is a little higher."""
    return _panels(len(datasets), 3, PANEL * (1.25 if len(datasets) == 1 else 1))


def _legend(figure: Figure) -> None:
    """Name each colour once, above the panels from the left: there a narrow screen shows it."""
    named: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(list(named.values()), list(named), loc="outside upper left", ncols=LEGEND_COLUMNS)


def _drawn(figure: Figure) -> Drawing:
    svg, pdf = io.StringIO(), io.BytesIO()
    nothing: dict[str, Any] = {"Creator": None}
    figure.savefig(svg, format="svg", metadata={**nothing, "Date": None})
    figure.savefig(pdf, format="pdf", metadata={**nothing, "CreationDate": None, "Producer": None})
    text = svg.getvalue()
    return Drawing(text[text.index("<svg") :], pdf.getvalue())
