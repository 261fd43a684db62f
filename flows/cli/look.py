"""The commands that inspect runs: show, report, export, sql, explain, compare, leaks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.options import RESULTS, AllColumns, Results, RunName, named_run, with_json
from xmore.files.errors import ConfigError, RunError
from xmore.files.paths import check_writable
from xmore.files.text import visible


@with_json
def show(
    run: RunName,
    oracle: Annotated[
        bool,
        typer.Option(
            "--oracle", help="Also show methods whose hyper-parameters have seen test labels."
        ),
    ] = False,
    all_columns: AllColumns = False,
    results: Results = RESULTS,
) -> None:
    """Print a run's leaderboard and the cost of each stage."""
    from flows.cli.terminal.runs import show_run

    show_run(results, named_run(results, run).name, oracle, all_columns)


@with_json
def sql(
    run: RunName,
    query: Annotated[
        str | None,
        typer.Argument(
            help="An SQL query. Default: read from standard input, or prompt on a terminal."
        ),
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json", "parquet"] | None,
        typer.Option(
            "--format", help="Output format. Default: as the output's ending says, else a table."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write the result to: .csv, .json or .parquet. Default: print it."
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--write-views",
            help="Only write the run's views.sql again: its paths are absolute, so it is needed "
            "after the results folder was moved.",
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds after which the query is stopped.")] = 600,
    results: Results = RESULTS,
) -> None:
    """Run a read-only SQL query on a run's results, with DuckDB, and print or save the rows."""
    from flows.cli import sql as queries
    from flows.cli.terminal.console import safe, say
    from xmore.results.absent import warn_of_left_out
    from xmore.results.views import open_views, write_views

    found = named_run(results, run)
    warn_of_left_out(found)
    connection = open_views(found)
    if again:
        say(safe(str(write_views(found))))
        return
    if query is None and sys.stdin.isatty():
        queries.prompt(connection, found.name)
    else:
        queries.run_query(connection, query or queries.read_query(), form, output, timeout)


@with_json
def compare(
    run: RunName,
    other: Annotated[
        str | None, typer.Argument(help="Run to compare with.", show_default=False)
    ] = None,
    to: Annotated[
        Literal["paper"] | None, typer.Option(help="Compare with the paper's tables instead.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Compare a run with another run or with the paper's tables, and print the differences."""
    from flows.cli.terminal.compare import show_comparison, show_paper
    from flows.cli.terminal.console import wants_json
    from xmore.results.compare import between, to_paper

    if (other is None) == (to is None):
        raise ConfigError("name another run or set `--to paper`.")
    found = named_run(results, run)
    if other is None:
        show_paper(found, to_paper(found))
    else:
        second = named_run(results, other)
        listed = None if wants_json() else 10
        show_comparison(found, second, between(found, second, listed))


@with_json
def explain(
    run: RunName,
    query: Annotated[
        str,
        typer.Argument(help="A query_id, or the end of an image's path.", show_default=False),
    ],
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of the query, if the run has several.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write the explanation, with images, to this HTML file; print nothing."),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Print how a query was classified, step by step: its scores, captions and predictions."""
    from flows.cli.terminal.console import safe, say
    from flows.cli.terminal.explain import show_explanation
    from xmore.report.explain import write_page
    from xmore.report.pictures import pictures_of
    from xmore.results.absent import warn_of_left_out
    from xmore.results.explain import explain as gather
    from xmore.results.views import open_views

    found = named_run(results, run)
    warn_of_left_out(found)
    if html:
        check_writable(html)
    steps = gather(open_views(found), query, dataset)
    if html is None:
        show_explanation(steps)
        return
    with pictures_of(found, steps.dataset) as images:
        write_page(steps, images.query(steps.uri), images.memory, html)
    say(safe(f"{html}: query {steps.query_id} of {steps.dataset}"))


@with_json
def leaks(
    run: RunName,
    threshold: Annotated[
        float | None,
        typer.Option(help="Minimum similarity of a near duplicate. Default: the run's."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write the pairs, with images, to this HTML file.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Print which test images are in the memory, and the accuracy without them."""
    from flows.cli.terminal.console import safe, say
    from flows.cli.terminal.leaks import show_reports
    from flows.leaks import leak_reports
    from xmore.memory.adopt import open_memory
    from xmore.report.leaks import write_leaks_page
    from xmore.results.absent import require

    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"--threshold must be above 0 and at most 1, got {threshold}.")
    found = named_run(results, run)
    if found.snapshot is None:
        raise RunError(
            f"run {found.name} had no memory in which a test image could be. Name another."
        )
    require(found, "candidates", "scores")
    if html:
        check_writable(html)
    memory, cache = Path(found.snapshot["memory"]), results / "cache"
    with open_memory(memory, cache, found.snapshot["name"]) as snapshot:
        reports = leak_reports(found, snapshot, threshold)
        show_reports(reports)
        if html:
            write_leaks_page(found, reports, html)
            say(safe(f"{html}: the pairs and their images"))


def export(
    run: RunName,
    to: Annotated[
        Literal["latex", "markdown", "csv", "json", "clip-benchmark"],
        typer.Option(help="Form. clip-benchmark: a JSON file per dataset and model."),
    ],
    spread: Annotated[
        Literal["none", "interval", "seeds"],
        typer.Option(
            help="In latex and markdown, beside each accuracy: half of Wilson's 95 % interval, or "
            "the deviation over the orders."
        ),
    ] = "none",
    method: Annotated[
        str, typer.Option(help="For clip-benchmark: a method, with its adjustment.")
    ] = "clip",
    output: Annotated[
        Path | None,
        typer.Option(help="File to write to; for clip-benchmark a folder. Default: print it."),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Print or write a run's accuracies for a paper, or for another program."""
    from flows.cli.terminal.console import safe, say
    from xmore.files.paths import write_whole
    from xmore.files.text import counted
    from xmore.report import export as forms
    from xmore.results.views import open_views

    found = named_run(results, run)
    db = open_views(found)
    if to == "clip-benchmark":
        if output is None:
            raise ConfigError("clip-benchmark needs a folder: add `--output FOLDER`.")
        written = forms.write_clip_benchmark(db, found, method, output)
        files = counted(len(written), "file")
        say(safe(f"{output}: {files}; `clip_benchmark build {output}` reads such a folder"))
        return
    if to in ("csv", "json"):
        text = forms.leaderboard_csv(db, found) if to == "csv" else forms.as_json(db, found)
    else:
        made = forms.as_latex if to == "latex" else forms.as_markdown
        text = made(db, found, spread)
    if output is None:
        print(visible(text, but="\n"), end="")
        return
    write_whole(output, text.encode())
    say(safe(f"{output}: {found.name}"))


def report(
    run: RunName,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: the run's `report/`.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Write a run's report: an HTML page with plots, tables and examples. It needs no network."""
    from flows.cli.terminal.console import safe, say
    from xmore.report.page import write_report
    from xmore.report.table import size
    from xmore.results.absent import require, warn_of_left_out

    found = named_run(results, run)
    if output is None:
        require(found, "scores")  # it came with a better one
    warn_of_left_out(found)
    page = write_report(found, output or found.path / "report")
    say(safe(f"{page}: {size(page.stat().st_size)}; its plots and tables are files next to it"))
