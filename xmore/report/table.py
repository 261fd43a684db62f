"""A table of a report: raw values, and their form for display, in CSV and in Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from xmore.files.progress import duration
from xmore.files.text import visible

Kind = Literal[
    "text",
    "name",
    "line",
    "time",
    "count",
    "share",
    "points",
    "number",
    "hours",
    "p",
    "score",
    "seconds",
    "bytes",
    "figure",
]
"""How a value is displayed; a `line` is a text in one line, a `name` one that names
its row, a `figure` one among numbers."""

TEXTS: tuple[Kind, ...] = ("text", "name", "line", "time")  # aligned to the left
_KEYS = {  # what a program calls a column whose name is for people
    "M": "m",
    "top-1 %": "top1",
    "top-5 %": "top5",
    "low": "ci_low",
    "high": "ci_high",
    "to clip": "difference",
    "± seeds": "top1_std",
    "covered %": "top1_covered",
    "short": "n_short",
    "s / image": "seconds_per_image",
    "memory MB": "peak_memory_mb",
    "takes": "hours",
}


@dataclass(frozen=True)
class Table:
    """Raw values, and the kind of each column."""

    name: str  # of its files
    title: str
    note: str
    columns: list[tuple[str, Kind]]
    rows: list[tuple[Any, ...]]

    def shown(self) -> list[list[str]]:
        """Return every cell formatted for display."""
        kinds = [kind for _, kind in self.columns]
        return [
            [show(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in self.rows
        ]

    def filled(self) -> Table:
        """Return the table without the columns that are empty in every row."""
        kept = [i for i, cells in enumerate(zip(*self.shown(), strict=True)) if any(cells)]
        return self.only(kept)

    def only(self, kept: Sequence[int]) -> Table:
        """Return the table with the columns at these places alone."""
        rows = [tuple(row[i] for i in kept) for row in self.rows]
        return replace(self, columns=[self.columns[i] for i in kept], rows=rows)

    def without(self, name: str) -> Table:
        """Return the table without the column `name`."""
        return self.only([i for i, (column, _) in enumerate(self.columns) if column != name])


def without_unused(table: Table, name: str) -> Table:
    """Return the table without the column `name` if that is empty in all rows."""
    at = [column for column, _ in table.columns].index(name)
    return table if any(row[at] for row in table.rows) else table.without(name)


def show(value: Any, kind: Kind) -> str:
    """Format a cell for display; None is empty."""
    if value is None:
        return ""
    if kind == "count":
        return f"{value:z,.0f}"
    if kind == "share":
        return f"{100 * value:z.1f}"
    if kind == "points":
        return f"{100 * value:+z.1f}"
    if kind == "number":
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:z.3g}"
    if kind == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if kind == "score":
        return f"{value:z.3f}"
    if kind == "seconds":
        return f"{value:z.1f}"
    if kind == "hours":
        return duration(3600 * value)
    if kind == "bytes":
        return size(value)
    if kind == "time":
        return f"{value[: len('2026-01-31T12:00')].replace('T', ' ')} UTC" if value else ""
    return str(value)


def size(count: float) -> str:
    """Return a number of bytes as human-readable text."""
    units = iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while abs(count) >= 1000 and unit != "PB":
        count, unit = count / 1000, next(units)
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def key_of(name: str) -> str:
    """Return what a program calls a column."""
    return _KEYS.get(name) or re.sub(r"\W+", "_", name.lower()).strip("_")


def records(table: Table) -> list[dict[str, Any]]:
    """Return the raw values of each row by the keys of the columns."""
    keys = [key_of(name) for name, _ in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def as_csv(table: Table) -> str:
    """Return the raw values as CSV, shares between 0 and 1, below the columns' keys.

    Texts are harmless in a spreadsheet and on a terminal.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(key_of(name) for name, _ in table.columns)
    writer.writerows([_harmless(value) for value in row] for row in table.rows)
    return out.getvalue()


def _harmless(value: Any) -> Any:
    """Return a text that no spreadsheet takes for a formula, without control characters."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def escaped(text: str) -> str:
    """Escape text for a cell of Markdown: one line, without HTML, links, lists or separators."""
    for char in "&\\`*_[]<>|":  # & first: it is in what stands for others
        text = text.replace(char, f"&#{ord(char)};" if char in "<>&|" else f"\\{char}")
    return " ".join(text.split())


def as_markdown(table: Table, escape: Callable[[str], str] = escaped) -> str:
    """Return the cells formatted for display, below the table's title and note."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(escape(cell) for cell in cells) + " |"

    names = line(name for name, _ in table.columns)
    rule = line("---" if kind == "text" else "---:" for _, kind in table.columns)
    rows = "\n".join(map(line, table.shown()))
    return f"**{table.title}.** {escape(table.note)}\n\n{names}\n{rule}\n{rows}\n"
