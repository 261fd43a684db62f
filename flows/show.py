"""What the command line prints: tables that line up, and where to look next."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from flows.doctor import Check
from flows.sweep import SweepTable
from xmore import report
from xmore.errors import RunError
from xmore.report import show
from xmore.runs import Run, load_run
from xmore.statistics import LEVEL
from xmore.views import open_views

console = Console(width=None if sys.stdout.isatty() else 120)


def safe(text: str) -> str:
    """Text from elsewhere for the terminal: no markup, no control or direction characters."""
    return escape(
        "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    )


@contextmanager
def step(name: str) -> Iterator[Callable[[str], None]]:
    """Say what was done and how long it took; the value adds a note."""
    notes: list[str] = []
    begun = time.perf_counter()
    yield notes.append
    line = f"{name:<14} {time.perf_counter() - begun:7.1f} s  {'; '.join(notes)}"
    console.print(safe(line.rstrip()), highlight=False, soft_wrap=True)


def show_up(api: str, logs: Path) -> None:
    """Where the server is, and what to type next."""
    prefect, xmore = (Path(sys.executable).with_name(name) for name in ("prefect", "xmore"))
    for line in (
        f"Prefect is up: {api.removesuffix('/api')} (logs in {logs}). Now, in this shell:",
        f"  export PREFECT_API_URL={api}",
        f"  {prefect} deployment run xmore-reindex/xmore-reindex --watch",
        f"  {prefect} deployment run xmore-benchmark/xmore-benchmark --watch",
        f"End it with: {xmore} down",
    ):
        console.print(safe(line), soft_wrap=True, highlight=False)


def show_run(results: Path, name: str, oracle: bool = False) -> None:
    """The leaderboard, what the stages cost, and how to go on."""
    run = load_run(results, name)
    if run.status != "completed":
        todo = f"go on with `xmore benchmark --resume {run.name}`"
        raise RunError(f"run {run.name} is {run.status}; {run.error or todo}")
    _show_leaderboard(run, oracle)
    _show_rejected(run)
    _show_leaks(run)
    _show_stages(run)
    done = [ref for ref in run.artifacts if not ref.skipped]
    if not done:
        console.print("Nothing to do: every stage was there already and was skipped.")
    page = run.path / "report" / "report.html"
    seen = f"Look at it: {page}" if page.exists() else f"Draw it: xmore report {run.name}"
    for line in (
        f"Run {run.name}: {run.seconds} s. {seen}",
        "Ask it, or open it in DuckDB:",
        f'  xmore sql {run.name} "from leaderboard"',
        f"  duckdb -init {run.path / 'views.sql'}",
    ):
        say(safe(line))


def show_sweep(sweep: SweepTable) -> None:
    """A sweep's table, and where it is."""
    table = table_of(*map(safe, sweep.columns))
    for column, values in zip(table.columns, zip(*sweep.rows, strict=True), strict=False):
        if any(isinstance(value, str) for value in values):
            column.justify = "left"
    for row in sweep.rows:
        table.add_row(*("" if value is None else safe(str(value)) for value in row))
    show_table(table)
    say(safe(f"{sweep.path}: this table. Its runs: {', '.join(sweep.runs)}"))


def show_runs(found: Sequence[Run]) -> None:
    """One line a run, the newest last."""
    if not found:
        console.print("No runs yet. Start one: xmore demo, or xmore benchmark CONFIG.")
        return
    table = table_of("run", "status", "datasets", "snapshot", "started", "seconds")
    for column in table.columns[:5]:
        column.justify = "left"
    for run in found:
        seconds = "" if run.seconds is None else f"{run.seconds:.1f}"
        datasets = ", ".join(Path(name).stem for name in run.config["datasets"])
        table.add_row(
            *map(escape, (run.name, run.status, datasets, run.snapshot["name"], run.started)),
            seconds,
        )
    show_table(table)


def show_faults(run: Run, faults: Sequence[str], repaired: bool) -> bool:
    """Print what is damaged, or that nothing is; returns whether something is."""
    for fault in faults:
        console.print(f"damaged: {safe(fault)}", soft_wrap=True, highlight=False)
    if not faults:
        count = len({ref.path for ref in run.artifacts})
        console.print(
            f"{run.name}: {count} artifacts and snapshot {run.snapshot['name']} are whole."
        )
    elif repaired:
        console.print("Damaged artifacts were moved aside (.broken-<n>); run the benchmark again.")
    else:
        console.print(f"Make them again: xmore verify {run.name} --repair, then run the benchmark.")
    return bool(faults)


@dataclass(frozen=True)
class Leaderboard:
    """The methods on one dataset under one model, as people read them."""

    dataset: str
    model: str
    n: int  # test images, of the method that answered most
    lines: list[list[str]]

    columns = (
        "method", "M", "n", "top-1 %", "to clip", "p", "± seeds", "covered", "top-5", "short",
        "s / image", "MB",
    )  # fmt: skip


LEGEND = (
    "top-1 ± half of Wilson's 95 % interval over the n images; ± seeds: deviation over the orders.",
    "to clip: points on the same images, * where more than chance: p < 0.05, exact McNemar of the",
    "least favourable order, corrected (Holm) for all that one model's `clip` is compared with.",
    "s / image, MB (of the process): all stages that the answers come from, when they were made.",
)


def leaderboards(run: Run, oracle: bool = False) -> list[Leaderboard]:
    """The report's table `leaderboard`, narrower: a board a dataset and model.

    `oracle` adds methods whose hyper-parameters have seen test labels.
    """
    boards: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    found = report.leaderboard(open_views(run), run, oracle)
    for dataset, model, n, name, m, *numbers in found.rows:
        top1, low, high, difference, p, std, covered, short, top5, _, seconds, peak = numbers
        sizes[dataset, model] = max(n, sizes[dataset, model])
        boards[dataset, model].append(
            [
                name,
                "" if m is None else str(m),
                str(n),
                f"{show(top1, 'share')} ± {show((high - low) / 2, 'share')}",
                points(difference, p),
                show(p, "p"),
                show(std, "share"),
                show(covered, "share"),
                show(top5, "share"),
                "" if m is None else str(short),
                show(seconds, "number"),
                show(peak, "count"),
            ]
        )
    return [Leaderboard(*of, sizes[of], lines) for of, lines in boards.items()]


AVERAGES = ("model", "method", "M", "datasets", "top-1 %", "95 % interval", "to clip", "95 %")


def averages(run: Run) -> list[list[str]]:
    """Rows under AVERAGES: the report's table `averages`, narrower."""
    return [
        [
            model,
            name,
            "" if m is None else str(m),
            str(datasets),
            show(top1, "share"),
            f"{show(low, 'share')} to {show(high, 'share')}",
            points(difference),
            "" if difference is None else f"{show(least, 'points')} to {show(most, 'points')}",
        ]
        for model, name, m, datasets, top1, low, high, difference, least, most
        in report.averages(open_views(run), run).rows
    ]  # fmt: skip


def points(difference: float | None, p: float | None = None) -> str:
    """A difference of shares in percentage points; a star where its p says more than chance."""
    if difference is None:
        return ""
    return f"{'* ' if p is not None and p < LEVEL else ''}{show(difference, 'points')}"


def show_checks(checks: Iterable[Check]) -> bool:
    """One line a check, as it is made; returns whether one has failed."""
    failed = False
    colours = {"ok": "green", "warning": "yellow", "failed": "red"}
    for check in checks:
        failed |= check.verdict == "failed"
        verdict = f"[{colours[check.verdict]}]{check.verdict:<8}[/]"
        todo = f" -> {check.todo}" if check.todo else ""
        line = f"{verdict} {check.name:<16} {safe(check.found + todo)}"
        console.print(line, soft_wrap=True, highlight=False)
    return failed


def _show_leaderboard(run: Run, oracle: bool) -> None:
    for board in leaderboards(run, oracle):
        table = table_of(*board.columns)
        table.title = safe(
            f"{board.dataset}, {board.model}, n = {board.n}, memory {run.snapshot['name']}"
        )
        for line in board.lines:
            table.add_row(*line)
        show_table(table)
    if rows := averages(run):
        table = table_of(*AVERAGES, first_columns_left=2)
        table.title = "Mean over the datasets, each counting alike"
        for cells in rows:
            table.add_row(*map(safe, cells))
        show_table(table)
    for text in LEGEND:
        say(text)
    say("")
    _show_hyperparameters(run, oracle)


def _show_hyperparameters(run: Run, oracle: bool) -> None:
    """Where the methods' settings come from, and that there are methods that are not shown."""
    db = open_views(run)
    found = report.hyperparameters(db, run, oracle)
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
            f"Not shown, as their hyper-parameters have seen test labels: {', '.join(hidden)} "
            "(--oracle)."
        )


def _show_rejected(run: Run) -> None:
    """Test images that were set aside, and classes that have none left."""
    views = open_views(run)
    for dataset, cause, count, example in views.execute(
        "select dataset, cause, count(*), min(uri) from rejected group by all order by all"
    ).fetchall():
        say(safe(f"{dataset}: {count} test images rejected: {cause} ({example})"))
    for dataset, name in views.execute(
        "select dataset, class_name from classes anti join queries using (dataset, label)"
    ).fetchall():
        say(safe(f"{dataset}: the class {name} has no test image that can be used"))


def _show_leaks(run: Run) -> None:
    """Test images that are in the memory, where there are any."""
    left_out = ", and were left out" if run.config.get("leaks", {}).get("exclude") else ""
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
        say(safe(f"{found}; see: xmore leaks {run.name}"))


def _show_stages(run: Run) -> None:
    table = table_of("stage", "artifacts", "skipped", "rows", "seconds", "peak memory MB")
    for stage, *counts, seconds, peak in report.stages(run).rows:
        table.add_row(stage, *map(str, counts), f"{seconds:.1f}", f"{peak:.0f}" if peak else "")
    show_table(table)


def say(line: str) -> None:
    """A line, not wrapped."""
    console.print(line, soft_wrap=True, highlight=False)


def show_table(table: Table) -> None:
    """Print a table as wide as it is: a narrow terminal wraps its lines, no cell is cut."""
    if table.title:
        say(f"[bold]{table.title}[/bold]")
        table.title = None
    wide = Console(width=1000)
    width = Measurement.get(wide, wide.options, table).maximum
    Console(width=width).print(table)


def table_of(*names: str, first_columns_left: int = 1) -> Table:
    """A table whose first columns are text and whose others are numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title_style="bold")
    for number, name in enumerate(names):
        side: Literal["left", "right"] = "left" if number < first_columns_left else "right"
        table.add_column(name, no_wrap=True, justify=side)
    return table
