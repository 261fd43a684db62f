"""`xmore sweep`: run all benchmarks of a sweep, one after another, and write its table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import load_config
from xmore.config.sweep import SweepConfig, members
from xmore.files.errors import ConfigError
from xmore.files.paths import real, write_whole
from xmore.files.sql import complaint
from xmore.results.runs import load_run
from xmore.results.views import check_query, open_views


@dataclass(frozen=True)
class SweepTable:
    """The result of a sweep: for each run, the rows of the sweep's SQL query."""

    columns: list[str]
    rows: list[list[Any]]
    runs: list[str]
    path: Path  # the same table as CSV, with the runs' names


def run_sweep(file: Path, base: Path | None, start: Callable[[BenchmarkConfig], str]) -> SweepTable:
    """Run the members of `file` with `start` and write `<results>/tables/<name>.csv`.

    A complete member only costs a check of its artifacts. Raises XmoreError.
    """
    sweep = load_config(file, SweepConfig)
    if base is not None:
        sweep = sweep.model_copy(update={"base": real(base)})
    try:
        empty = not duckdb.extract_statements(sweep.table)
        if not empty:
            check_query(sweep.table)
    except duckdb.Error as error:
        raise ConfigError(f"{file}: `table`: {complaint(error)}") from error
    if empty:
        raise ConfigError(f"{file}: `table` is empty. Write a query, such as `from leaderboard`.")
    found = list(members(sweep, file.resolve().parent))  # raises before the first run starts
    columns: list[str] = []
    rows: list[list[Any]] = []
    names: list[str] = []
    for member in found:
        # A report for each would cost more than the runs; `xmore report` writes any of them later.
        name = start(member.config.model_copy(update={"report": False}))
        views = open_views(load_run(member.config.results, name))
        try:
            table = views.execute(sweep.table)
            found_rows = table.fetchall()  # which fails where the query does
        except duckdb.Error as error:
            told = f"{file}: `table`: {complaint(error)}"
            raise ConfigError(f"{told.rstrip('.')}. Run {name} is complete.") from error
        columns = [*member.values, *(column[0] for column in table.description or ())]
        rows += [[*member.values.values(), *row] for row in found_rows]
        names += [name] * (len(rows) - len(names))
    path = found[0].config.results / "tables" / f"{sweep.name}.csv"
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, "run"])
    writer.writerows([*row, name] for row, name in zip(rows, names, strict=True))
    write_whole(path, out.getvalue().encode())
    return SweepTable(columns, rows, list(dict.fromkeys(names)), path)
