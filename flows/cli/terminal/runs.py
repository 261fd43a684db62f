"""What `xmore show`, `runs` and `sweep` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from flows.cli.terminal.console import console, safe, say, show_table, table_of, where
from flows.sweep import SweepTable
from xmore.files.errors import RunError
from xmore.files.paths import real
from xmore.report.leaderboard import (
    AVERAGES,
    LEGEND,
    average_lines,
    hyperparameters,
    leaderboards,
)
from xmore.report.tables import stages
from xmore.results.cut import cut_sentences
from xmore.results.runs import Run, load_run
from xmore.results.views import open_views


def show_run(results: Path, name: str, oracle: bool = False) -> None:
    """Print the leaderboard, problems, the cost of the stages, and the next commands to run."""
    run = load_run(results, name)
    if run.status != "completed":
        todo = f"Resume it with `xmore benchmark --resume {run.name}{where(results)}`."
        raise RunError(f"run {run.name} is {run.status}. {run.error or todo}")
    _show_leaderboard(run, oracle)
    _show_rejected(run)
    for line in cut_sentences(run):
        say(safe(line))
    _show_leaks(run)
    _show_stages(run)
    done = [ref for ref in run.artifacts if not ref.skipped]
    if not done:
        console.print("Nothing to do: every stage was already complete and was skipped.")
    page = run.path / "report" / "report.html"
    here = where(results)
    seen = f"Report: {page}" if page.exists() else f"To write it: xmore report {run.name}{here}"
    for line in (
        f"Run {run.name}: {run.seconds} s, in {real(results)}. {seen}",
        "Query its results with SQL, or open them in DuckDB:",
        f'  xmore sql {run.name} "from leaderboard"{here}',
        f"  duckdb -init {run.path / 'views.sql'}",
    ):
        say(safe(line))


def show_sweep(sweep: SweepTable) -> None:
    """Print a sweep's table, its path and its runs."""
    table = table_of(*map(safe, sweep.columns))
    for column, values in zip(table.columns, zip(*sweep.rows, strict=True), strict=False):
        if any(isinstance(value, str) for value in values):
            column.justify = "left"
    for row in sweep.rows:
        table.add_row(*("" if value is None else safe(str(value)) for value in row))
    show_table(table)
    say(safe(f"{sweep.path}: this table as CSV. Its runs: {', '.join(sweep.runs)}"))


def show_runs(found: Sequence[Run]) -> None:
    """Print one line per run, newest last."""
    if not found:
        console.print("No runs yet. Start one: xmore demo, or xmore benchmark CONFIG.")
        return
    table = table_of("run", "status", "datasets", "snapshot", "started", "seconds")
    for column in table.columns[:5]:
        column.justify = "left"
    for run in found:
        seconds = "" if run.seconds is None else f"{run.seconds:.1f}"
        datasets = ", ".join(Path(name).stem for name in run.config["datasets"]) + run.trial
        table.add_row(
            *map(escape, (run.name, run.status, datasets, run.snapshot["name"], run.started)),
            seconds,
        )
    show_table(table)


def _show_leaderboard(run: Run, oracle: bool) -> None:
    for board in leaderboards(run, oracle):
        table = table_of(*board.columns)
        table.title = safe(
            f"{board.dataset}, {board.model}, n = {board.n}, memory {run.snapshot['name']}"
        )
        for line in board.lines:
            table.add_row(*line)
        show_table(table)
    if rows := average_lines(run):
        table = table_of(*AVERAGES, first_columns_left=2)
        table.title = "Mean over the datasets, equally weighted"
        for cells in rows:
            table.add_row(*map(safe, cells))
        show_table(table)
    for text in LEGEND:
        say(text)
    say("")
    _show_hyperparameters(run, oracle)


def _show_hyperparameters(run: Run, oracle: bool) -> None:
    """Print the sources of the hyper-parameters, and which methods are not shown."""
    db = open_views(run)
    found = hyperparameters(db, run, oracle)
    used = [i for i, cells in enumerate(zip(*found.rows, strict=True)) if any(cells)]
    table = table_of(*(found.columns[i][0] for i in used), first_columns_left=len(used))
    table.title = found.title
    for row in found.shown():
        table.add_row(*(safe(row[i]) for i in used))
    if found.rows:
        show_table(table)
    (hidden,) = db.execute(
        "select list(distinct method) from leaderboard_all where oracle"
    ).fetchall()[0]
    if hidden and not oracle:
        say(
            f"Not shown, because their hyper-parameters have seen test labels: "
            f"{', '.join(hidden)}. To show them: --oracle."
        )


def _show_rejected(run: Run) -> None:
    """Print rejected test images by cause, and classes without a usable test image."""
    views = open_views(run)
    for dataset, cause, count, example in views.execute(
        "select dataset, cause, count(*), min(uri) from rejected group by all order by all"
    ).fetchall():
        say(safe(f"{dataset}: {count} test images rejected: {cause} ({example})"))
    if run.trial:  # a sample has no image of some classes
        return
    for dataset, name in views.execute(
        "select dataset, class_name from classes anti join queries using (dataset, label)"
    ).fetchall():
        say(safe(f"{dataset}: the class {name} has no usable test image"))


def _show_leaks(run: Run) -> None:
    """Print the number of test images that are in the memory, if there are any."""
    left_out = ", and were excluded" if run.config.get("leaks", {}).get("exclude") else ""
    for dataset, count, n in (
        open_views(run)
        .execute(
            "select dataset, count(distinct query_id), "
            "(select count(*) from queries q where q.dataset = leaks.dataset) "
            "from leaks group by dataset order by dataset"
        )
        .fetchall()
    ):
        found = f"{dataset}: {count} of {n} test images are in the memory{left_out}"
        say(safe(f"{found}; see: xmore leaks {run.name}{where(run.results)}"))


def _show_stages(run: Run) -> None:
    table = table_of("stage", "artifacts", "skipped", "rows", "seconds", "peak memory MB")
    for stage, *counts, seconds, peak in stages(run).rows:
        table.add_row(stage, *map(str, counts), f"{seconds:.1f}", f"{peak:.0f}" if peak else "")
    show_table(table)
