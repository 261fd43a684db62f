"""The terminal: safe text, timed steps, aligned tables."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from xmore.files.paths import RESULTS, real
from xmore.files.text import visible

console = Console(width=None if sys.stdout.isatty() else 120)


def safe(text: str) -> str:
    """Make untrusted text safe to print: no markup, no control or direction characters."""
    return escape(visible(text, but="\n"))


def where(results: Path) -> str:
    """Return the option that a command needs to find runs in `results`; empty for the default."""
    return "" if real(results) == real(RESULTS) else f" --results {shlex.quote(str(results))}"


@contextmanager
def step(name: str) -> Iterator[Callable[[str], None]]:
    """Print the block's name and its duration at its end; the value adds a note to the line."""
    notes: list[str] = []
    begun = time.perf_counter()
    yield notes.append
    line = f"{name:<14} {time.perf_counter() - begun:7.1f} s  {'; '.join(notes)}"
    console.print(safe(line.rstrip()), highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Print a line without wrapping it."""
    console.print(line, soft_wrap=True, highlight=False)


def show_table(table: Table) -> None:
    """Print a table at its full width: a narrow terminal wraps its lines, no cell is cut."""
    if table.title:
        say(f"[bold]{table.title}[/bold]")
        table.title = None
    wide = Console(width=1000)
    width = Measurement.get(wide, wide.options, table).maximum
    Console(width=width).print(table)


def table_of(*names: str, first_columns_left: int = 1) -> Table:
    """Return an empty table: the first columns hold text, the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title_style="bold")
    for number, name in enumerate(names):
        side: Literal["left", "right"] = "left" if number < first_columns_left else "right"
        table.add_column(name, no_wrap=True, justify=side)
    return table
