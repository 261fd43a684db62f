"""What `xmore show`, `runs` and `sweep` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from flows.cli.terminal.console import record, safe, say, show_rows, show_table, wants_json
from flows.sweep import SweepTable
from xmore.files.errors import RunError
from xmore.files.paths import real, where
from xmore.report.leaderboard import (
    LEGEND,
    LEGEND_OF_FEW,
    average_table,
    averages,
    hyperparameters,
    leaderboard,
    leaderboards,
)
from xmore.report.prompt_sets import prompt_sets
from xmore.report.recalls import LEGEND as LEGEND_OF_RECALLS
from xmore.report.recalls import model_comparisons, recall_boards, recalls
from xmore.report.table import Kind, Table
from xmore.report.tables import stages
from xmore.results.notes import notes
from xmore.results.runs import Run, load_run
from xmore.results.views import VIEWS, are_of_here, open_views


def show_run(results: Path, name: str, oracle: bool = False, every_column: bool = False) -> None:
    """Print the leaderboard, problems, the cost of the stages, and the next commands to run."""
    run = load_run(results, name)
    if run.status != "completed":
        todo = f"Resume it with `xmore benchmark --resume {run.name}{where(results)}`."
        raise RunError(f"run {run.name} is {run.status}. {run.error or todo}")
    db = open_views(run)
    methods = any(ref.stage == "metrics" for ref in run.artifacts)
    if methods:
        _show_leaderboard(db, run, oracle, every_column)
    _show_recalls(db, run)
    told = notes(db, run)
    for line in told:
        say(safe(line))
    if told:
        say("")
    show_table(stages(run))
    page = run.path / "report" / "report.html"
    here = where(results)
    seen = f"Report: {page}" if page.exists() else f"To write it: xmore report {run.name}{here}"
    say(safe(f"Run {run.name}: {run.seconds} s in its stages, results in {real(results)}. {seen}"))
    if methods and not every_column:
        say(safe(f"All columns: xmore show {run.name} --all-columns{here}"))
    table = "leaderboard" if methods else "recalls"
    say(safe(f'SQL: xmore sql {run.name} "from {table}"{here}'))
    if are_of_here(run):
        say(safe(f"In any DuckDB: {run.path / VIEWS}"))
    else:  # it would read the folder from which this one was copied
        todo = f"xmore sql {run.name} --write-views{here}"
        say(safe(f"For any DuckDB, as these results were moved: {todo}"))


def show_sweep(sweep: SweepTable) -> None:
    """Print a sweep's table, its path and its runs."""
    record("sweep", (dict(zip(sweep.columns, row, strict=True)) for row in sweep.rows))
    if not wants_json():
        show_rows(sweep.columns, sweep.rows)
    say(safe(f"{sweep.path}: this table as CSV. Its runs: {', '.join(sweep.runs)}"))


def show_runs(found: Sequence[Run], every_column: bool = False) -> None:
    """Print one line per run, newest last."""
    if not found:
        say("No runs yet. Start one: xmore demo, or xmore benchmark CONFIG.")
    columns: list[tuple[str, Kind]] = [
        ("run", "name"),
        ("status", "line"),
        ("datasets", "text"),
        ("started", "time"),
        ("seconds", "seconds"),
        ("snapshot", "line"),
    ]
    rows = [
        (
            run.name,
            run.status,
            ", ".join(_datasets(run)) + run.trial,
            run.started,
            run.seconds,
            run.snapshot_name,
        )
        for run in found
    ]
    shown = len(columns) if every_column or wants_json() else -1
    if found or wants_json():
        show_table(Table("runs", "", "", columns[:shown], [row[:shown] for row in rows]))


def _datasets(run: Run) -> list[str]:
    """Return the names of a run's datasets; of their cards, if it has not come to all of them."""
    found = dict.fromkeys(ref.dataset for ref in run.artifacts if ref.stage == "queries")
    if run.status == "completed":
        return [*found]
    return [Path(name).stem for name in run.config["datasets"]]


def _show_leaderboard(
    db: duckdb.DuckDBPyConnection, run: Run, oracle: bool, every_column: bool
) -> None:
    if wants_json():
        show_table(leaderboard(db, run, oracle))
        show_table(averages(db, run))
    else:
        for board in leaderboards(db, run, oracle):
            show_table(board.table(run.snapshot_name, every_column))
        mean = average_table(db, run, every_column)
        if mean.rows:
            show_table(mean)
    between = prompt_sets(db, run)
    if between.rows:
        show_table(between, by=2)
    for text in LEGEND if every_column else LEGEND[:LEGEND_OF_FEW]:
        say(text)
    say("")
    _show_hyperparameters(db, run, oracle)


def _show_recalls(db: duckdb.DuckDBPyConnection, run: Run) -> None:
    """Print the recall of each model on each retrieval dataset."""
    found = recalls(db, run)
    if not found.rows:
        return
    if wants_json():
        show_table(found)
        show_table(model_comparisons(db))
    else:
        for board in recall_boards(db, run):
            show_table(board)
        for text in LEGEND_OF_RECALLS:
            say(text)
        say("")


def _show_hyperparameters(db: duckdb.DuckDBPyConnection, run: Run, oracle: bool) -> None:
    """Print the sources of the hyper-parameters, and which methods are not shown."""
    found = hyperparameters(db, run, oracle)
    if found.rows or wants_json():
        show_table(found.filled())
    (hidden,) = db.execute(
        "select list(distinct method) from leaderboard_all where oracle"
    ).fetchall()[0]
    if hidden and not oracle:
        say(
            f"Not shown, because their hyper-parameters have seen test labels: "
            f"{', '.join(hidden)}. To show them: --oracle."
        )
