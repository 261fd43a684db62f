"""The colour of each method: at most MOST in one plot; the others are grey, told by their marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MOST = 8  # colours that a reader can tell apart
GREY = "#b9bec5"
MARKS = "sv^DPX<>*hpd"  # of what is grey
COLOURS = {
    "clip": "#6f757e",
    "caption-ensemble": "#d98c2b",
    "equal": "#3fa37c",
    "xmore minmax": "#4f83e0",
    "xmore running-sum": "#8c6fd6",
    "xmore global": "#2fa8c7",
    "xmore none": "#c45c94",
    "coder-captions": "#8b2f3a",
    "calip": "#b0894f",
    "calip-oracle": "#7a5c2e",
    "confident-views": "#a3b83a",
    "tpt": "#4d7a1f",
    "coder": "#e59ab5",
    "coder-rerank": "#c45c5c",
    "reco": "#1f4e79",
    "image": "#4f83e0",
    "captions": "#d98c2b",
}
PAPERS = tuple(COLOURS)[:7]  # in colour in every plot
OTHERS = ("#b8a04a", "#6d9b2f", "#d07a5c", "#5a6fc0", "#7d4fa0", "#2f7f7a", "#a0522d", "#c27ba0")


@dataclass(frozen=True)
class Style:
    """How a method is drawn."""

    colour: str
    mark: str = "o"


@dataclass(frozen=True)
class Styles:
    """How the methods of a report are drawn, the same in all its plots."""

    of: Mapping[str, Style] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Style:
        """The style of a method, whose name may end in its number of images: "tpt (n = 32)"."""
        method = name.partition(" (")[0]
        return self.of.get(method) or Style(COLOURS.get(method, OTHERS[0]))

    def told(self, names: Iterable[str]) -> str:
        """Return which of the names are grey, as a sentence; empty if none is."""
        grey = dict.fromkeys(name for name in names if self[name].colour == GREY)
        if not grey:
            return ""
        return f" In grey, told by their marks, beyond {MOST} methods: {', '.join(grey)}."


def styles(accuracies: Mapping[str, float]) -> Styles:
    """Return the styles of methods, which are named in the order of tables, by their accuracy.

    In colour are the paper's, then the most accurate, up to MOST.
    """
    best = sorted(accuracies, key=lambda name: (name not in PAPERS, -accuracies[name]))
    coloured = set(best[:MOST])
    without = [name for name in accuracies if name in coloured and name not in COLOURS]
    own = dict(zip(without, OTHERS, strict=False))
    grey = [name for name in accuracies if name not in coloured]
    return Styles(
        {name: Style(COLOURS.get(name) or own[name]) for name in coloured}
        | {name: Style(GREY, MARKS[i % len(MARKS)]) for i, name in enumerate(grey)}
    )
