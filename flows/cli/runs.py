"""The commands `xmore runs`: list runs, remove one, free what no run uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import RESULTS, AllColumns, Commands, Json, Results, with_json

commands = Commands(
    help="List all runs; remove one, and free what no run uses.",
    invoke_without_command=True,
)

Place = Annotated[
    Path | None, typer.Option(help="Results folder, with runs/ and store/.", show_default=False)
]


@commands.callback()
def runs(
    context: typer.Context,
    all_columns: AllColumns = False,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """List all runs: status, datasets, snapshot, start and duration."""
    from flows.cli.terminal.console import tables_as_json

    context.obj = results  # of `rm` and `gc`, too
    if as_json:
        context.with_resource(tables_as_json())
    if context.invoked_subcommand:
        return
    from flows.cli.terminal.runs import show_runs
    from xmore.results.runs import all_runs

    show_runs(all_runs(results), all_columns)


@commands.command()
@with_json
def rm(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Whole name of a run.", show_default=False)],
    results: Place = None,
) -> None:
    """Remove a run and its report; say what no run uses any more, and `gc` would delete."""
    from flows.cli.terminal.console import record, safe, say
    from xmore.files.paths import where
    from xmore.report.table import size
    from xmore.results.removal import remove_run, unused

    place = results or Path(context.obj)
    remove_run(place, run)
    record("removed", [{"run": run}])
    say(safe(f"Removed run {run}. Its artifacts are kept."))
    left = unused(place)
    record("unused", [{"artifacts": len(left.paths), "bytes": left.bytes}])
    if left.paths:
        found = f"{len(left.paths)} ({size(left.bytes)})"
        say(safe(f"Artifacts in no run: {found}. To delete them: xmore runs gc{where(place)}"))


@commands.command()
@with_json
def gc(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    results: Place = None,
) -> None:
    """Delete the artifacts that no run uses; texts' embeddings and unfinished parts are kept."""
    from flows.cli.terminal.console import record, say
    from xmore.report.table import size
    from xmore.results.removal import collect, unused

    place = results or Path(context.obj)
    found = unused(place) if dry_run else collect(place)
    facts = {"artifacts": len(found.paths), "bytes": found.bytes, "deleted": not dry_run}
    record("unused", [facts])
    done = "Would delete" if dry_run else "Deleted"
    say(f"{done} artifacts in no run: {len(found.paths)} ({size(found.bytes)})")
