"""The commands that look at a run: runs, show, report, sql, explain, compare, leaks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.options import RESULTS, Results, RunName
from xmore.files.errors import ConfigError


def runs(results: Results = RESULTS) -> None:
    """List all runs."""
    from flows.cli.terminal.runs import show_runs
    from xmore.results.runs import all_runs

    show_runs(all_runs(results))


def show(
    run: RunName,
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Also methods whose hyper-parameters have seen test labels."),
    ] = False,
    results: Results = RESULTS,
) -> None:
    """Print a run's leaderboard and what its stages cost."""
    from flows.cli.terminal.runs import show_run
    from xmore.results.runs import load_run

    show_run(results, load_run(results, run).name, oracle)


def sql(
    run: RunName,
    query: Annotated[
        str | None, typer.Argument(help="SQL; none: standard input, or a prompt on a terminal.")
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json", "parquet"], typer.Option("--format", help="Of the answer.")
    ] = "table",
    output: Annotated[Path | None, typer.Option(help="File to write the answer to.")] = None,
    results: Results = RESULTS,
) -> None:
    """Ask a run's results in DuckDB's SQL; nothing is changed."""
    from flows.cli import sql as asking
    from xmore.results.runs import load_run
    from xmore.results.views import open_views

    found = load_run(results, run)
    connection = open_views(found)
    if query is None and sys.stdin.isatty():
        asking.prompt(connection, found.name)
    else:
        asking.answer(connection, query or sys.stdin.read(), form, output)


def compare(
    run: RunName,
    other: Annotated[str | None, typer.Argument(help="Another run.", show_default=False)] = None,
    to: Annotated[Literal["paper"] | None, typer.Option(help="Or the paper's tables.")] = None,
    results: Results = RESULTS,
) -> None:
    """Set a run beside the paper's tables, or beside another run."""
    from flows.cli.terminal.compare import show_comparison, show_paper
    from xmore.results.compare import between, to_paper
    from xmore.results.runs import load_run

    if (other is None) == (to is None):
        raise ConfigError("name another run, or `--to paper`.")
    found = load_run(results, run)
    if other is None:
        show_paper(found, to_paper(found))
    else:
        second = load_run(results, other)
        show_comparison(found, second, between(found, second))


def explain(
    run: RunName,
    query: Annotated[
        str, typer.Argument(help="Its query_id, or the end of its path.", show_default=False)
    ],
    dataset: Annotated[
        str | None, typer.Option(help="Of the query, where the run has several.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Draw it with pictures in this file.")] = None,
    results: Results = RESULTS,
) -> None:
    """Show a query's whole way: what was seen, retrieved, thought and answered."""
    from flows.cli.terminal.explain import show_explanation
    from xmore.report.explain import write_page
    from xmore.report.pictures import pictures_of
    from xmore.results.explain import explain as gather
    from xmore.results.runs import load_run
    from xmore.results.views import open_views

    found = load_run(results, run)
    way = gather(open_views(found), query, dataset)
    if html is None:
        show_explanation(way)
        return
    with pictures_of(found, way.dataset) as pictures:
        write_page(way, pictures.query(way.uri), pictures.memory, html)
    print(f"{html}: query {way.query_id} of {way.dataset}")


def leaks(
    run: RunName,
    threshold: Annotated[
        float | None, typer.Option(help="Similarity of a near duplicate; none: the run's own.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Draw the pairs in this file.")] = None,
    results: Results = RESULTS,
) -> None:
    """Say which test images are in the memory, and what accuracy is without them."""
    from flows.cli.terminal.leaks import show_reports
    from flows.leaks import leak_reports
    from xmore.memory.adopt import open_memory
    from xmore.report.leaks import write_leaks_page
    from xmore.results.runs import load_run

    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"--threshold must be above 0 and at most 1, got {threshold}.")
    found = load_run(results, run)
    memory, cache = Path(found.snapshot["memory"]), results / "cache"
    with open_memory(memory, cache, found.snapshot["name"]) as snapshot:
        reports = leak_reports(found, snapshot, threshold)
        show_reports(reports)
        if html:
            write_leaks_page(found, reports, html)
            print(f"{html}: the pairs as pictures")


def report(
    run: RunName,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write to; none: `report/` in the run's own.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Write a run as a page with plots, tables and examples; it needs no network."""
    from flows.cli.terminal.console import safe, say
    from xmore.report.page import write_report
    from xmore.results.runs import load_run

    found = load_run(results, run)
    page = write_report(found, output or found.path / "report")
    say(safe(f"{page}: {page.stat().st_size / 1e6:.1f} MB; plots and tables lie beside it"))
