"""The terminal: safe text, timed steps, tables that fit it; or the tables as JSON."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from typing import Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Drawing

from xmore.files.progress import working
from xmore.files.text import visible
from xmore.report.table import TEXTS, Kind, Table, records

ENDLESS = 100_000  # columns where there is no terminal: a file gets whole lines
LEAST = 10  # columns that a text needs; its lines are folded to no less
GAP = 3  # columns between two of a table
Rows = list[dict[str, Any]]

_json: ContextVar[dict[str, Rows] | None] = ContextVar("json", default=None)


@contextmanager
def tables_as_json() -> Iterator[None]:
    """Print the block's tables as one JSON object at its end; all other text goes to stderr.

    The object has the name of each table, and as its value the table's rows, each an object. It is
    not printed after an error. Within another such block, that one prints it.
    """
    if wants_json():
        yield
        return
    found: dict[str, Rows] = {}
    wrong: typer.Exit | None = None
    token = _json.set(found)
    try:
        yield
    except typer.Exit as ended:  # the command found something wrong, and recorded it
        wrong = ended
    finally:
        _json.reset(token)
    print(json.dumps(found, indent=1, ensure_ascii=False, default=str))
    if wrong is not None:
        raise wrong


def wants_json() -> bool:
    """Return whether tables are printed as JSON."""
    return _json.get() is not None


def record(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to a table of the JSON; does nothing without `--json`."""
    found = _json.get()
    if found is not None:
        kept = [{key: _finite(value) for key, value in row.items()} for row in rows]
        found.setdefault(name, []).extend(kept)


def _finite(value: Any) -> Any:
    """Return null for NaN and infinity, which JSON lacks."""
    return None if isinstance(value, float) and value - value != 0 else value


def width() -> int:
    """Return the number of columns of the terminal, or of the variable COLUMNS."""
    return shutil.get_terminal_size((ENDLESS, 24)).columns


def _room() -> int:
    """Return the columns that a table has within its margins."""
    return width() - 2


def safe(text: str) -> str:
    """Make untrusted text safe to print: no markup, no control or direction characters."""
    return escape(visible(text, but="\n"))


def cut(text: str, taken: int) -> str:
    """Return text in one line that fits beside columns that take `taken`; a cut ends in `…`."""
    line, room = " ".join(text.split()), max(20, width() - taken)
    return line if len(line) <= room else f"{line[: room - 1]}…"


@contextmanager
def step(name: str) -> Iterator[Callable[[str], None]]:
    """Print the block's name and its duration at its end; the value adds a note to the line."""
    notes: list[str] = []
    begun = time.perf_counter()
    with working(name):
        yield notes.append
    line = f"{name:<14} {time.perf_counter() - begun:7.1f} s  {'; '.join(notes)}"
    say(safe(line.rstrip()))


@contextmanager
def waiting(name: str) -> Iterator[None]:
    """A step that shows no progress of its own: a terminal shows that it goes on."""
    with step(name), Console(stderr=True).status(f"{name} ..."):
        yield


def say(line: str) -> None:
    """Print a line without wrapping it."""
    Console(stderr=wants_json()).print(line, soft_wrap=True, highlight=False)


def show_table(table: Table, by: int = 0) -> None:
    """Print a table that fits the terminal: texts are folded within their column, nothing is cut.

    The first `by` columns become the titles of groups of rows. With `--json`, only record it.
    """
    if wants_json():
        record(table.name, records(table))
        return
    if not by:
        _draw(table.title, table.columns, table.shown(), _keys(table.columns))
        return
    heads = table.columns[:by]
    for values, rows in groupby(table.shown(), lambda row: row[:by]):
        named = zip(heads, values, strict=True)
        title = ", ".join(v if kind in TEXTS else f"{name} = {v}" for (name, kind), v in named)
        _draw(title, table.columns[by:], [row[by:] for row in rows], _keys(table.columns[by:]))


def _keys(columns: Sequence[tuple[str, Kind]]) -> int:
    return int(columns[0][1] == "name")


def _draw(
    title: str,
    columns: Sequence[tuple[str, Kind]],
    rows: Sequence[Sequence[str]],
    keys: int,
) -> None:
    """Draw the columns beside each other, those without room in further blocks below.

    The first `keys` columns stand in each block, as far as they leave half of the room.
    """
    if title:
        say(f"[bold]{safe(title)}[/bold]")
    names = [name for name, _ in columns]
    widths = [max(map(_width_of, cells)) for cells in zip(names, *rows, strict=True)]
    least = [
        min(LEAST, wide) if kind == "text" else wide
        for wide, (_, kind) in zip(widths, columns, strict=True)
    ]
    key = [i for i in range(keys) if 2 * sum(w + GAP for w in widths[: i + 1]) <= _room()]
    for i in key:
        least[i] = widths[i]
    blocks, block = list[list[int]](), list(key)
    for i in range(len(key), len(columns)):
        if len(block) > len(key) and sum(least[j] + GAP for j in [*block, i]) - GAP > _room():
            blocks.append(block)
            block = list(key)
        block.append(i)
    left = _room() - sum(least[i] + GAP for i in key)
    for chosen in [*blocks, block]:
        drawing = Drawing(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, (name, kind), wide in ((i, columns[i], least[i]) for i in chosen):
            side: Literal["left", "right"] = "left" if kind in TEXTS else "right"
            room = _room() if i in key else left
            fixed = (i in key or kind != "text") and wide <= _room()
            drawing.add_column(
                safe(name),
                no_wrap=fixed,
                justify=side,
                overflow="ellipsis" if kind == "line" else "fold",
                min_width=wide if i in key else None,
                max_width=room if wide > room else None,
            )
        for row in rows:
            drawing.add_row(*(safe(row[i]) for i in chosen))
        Console(width=width()).print(drawing)


def show_rows(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print the rows of a query, in as many blocks of columns as they need.

    The texts and the id that rows begin with, or else the first column, stand in each block.
    """
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in names]
    kinds: list[Kind] = ["figure" if _is_number(column) else "line" for column in columns]
    cells = [[_cell(value) for value in row] for row in rows]
    keys = next((i for i, kind in enumerate(kinds) if kind != "line"), len(kinds))
    keys += any(name.endswith("_id") for name in names[keys : keys + 1])
    _draw("", list(zip(names, kinds, strict=True)), cells, max(1, keys))


def _is_number(column: Sequence[Any]) -> bool:
    return not any(isinstance(value, bool | str | list | dict) for value in column)


def _cell(value: Any) -> str:
    """Return a value as text; a line that is longer than the terminal is cut."""
    if value is None:
        return "NULL"
    text = f"{value:z.6g}" if isinstance(value, float) else str(value)
    room = _room()
    lines = text.split("\n")
    return "\n".join(line if len(line) <= room else f"{line[: room - 1]}…" for line in lines)


def _width_of(text: str) -> int:
    return max(map(len, text.split("\n")))
