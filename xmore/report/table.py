"""A table of a report: raw values, and their form for display, in CSV and in Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from xmore.files.text import visible

Kind = Literal["text", "count", "share", "points", "number", "p"]


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


def show(value: Any, kind: Kind) -> str:
    """Format a cell for display; None is empty."""
    if value is None:
        return ""
    if kind == "count":
        return f"{value:,.0f}"
    if kind == "share":
        return f"{100 * value:.1f}"
    if kind == "points":
        return f"{100 * value:+.1f}"
    if kind == "number":
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if kind == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    return str(value)


def as_csv(table: Table) -> str:
    """Return the raw values as CSV; texts are harmless in a spreadsheet and on a terminal."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(name for name, _ in table.columns)
    writer.writerows([_harmless(value) for value in row] for row in table.rows)
    return out.getvalue()


def _harmless(value: Any) -> Any:
    """Return a text that no spreadsheet takes for a formula, without control characters."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def as_markdown(table: Table) -> str:
    """Return the cells formatted for display, below the table's title and note."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"

    names = line(name for name, _ in table.columns)
    rule = line("---" if kind == "text" else "---:" for _, kind in table.columns)
    rows = "\n".join(map(line, table.shown()))
    return f"**{table.title}.** {_escaped(table.note)}\n\n{names}\n{rule}\n{rows}\n"


def _escaped(text: str) -> str:
    """Escape text for a cell of Markdown: one line, without HTML, links or column separators."""
    for char in "\\`*_[]<>|&":
        text = text.replace(char, f"&#{ord(char)};" if char in "<>&|" else f"\\{char}")
    return " ".join(text.split())
