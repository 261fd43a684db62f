"""The commands `xmore runs`: list runs, remove one, free what no run uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.look import runs

commands = typer.Typer(
    help="List all runs; remove one, and free what no run uses.",
    invoke_without_command=True,
    add_completion=False,
)
commands.callback()(runs)

Place = Annotated[
    Path | None, typer.Option(help="Results folder, with runs/ and store/.", show_default=False)
]


@commands.command()
def rm(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Whole name of a run.", show_default=False)],
    results: Place = None,
) -> None:
    """Remove a run and its report; say what no run uses any more, and `gc` would delete."""
    from flows.cli.terminal.console import safe, say, where
    from xmore.results.removal import remove_run, unused

    place = results or Path(context.obj)
    remove_run(place, run)
    say(safe(f"Removed run {run}. Its artifacts are kept."))
    left = unused(place)
    if left.paths:
        size = f"{len(left.paths)} ({left.bytes / 1e6:.1f} MB)"
        say(safe(f"Artifacts in no run: {size}. To delete them: xmore runs gc{where(place)}"))


@commands.command()
def gc(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    results: Place = None,
) -> None:
    """Delete the artifacts that no run uses; texts' embeddings and unfinished parts are kept."""
    from flows.cli.terminal.console import say
    from xmore.results.removal import collect, unused

    place = results or Path(context.obj)
    found = unused(place) if dry_run else collect(place)
    done = "Would delete" if dry_run else "Deleted"
    say(f"{done} artifacts in no run: {len(found.paths)} ({found.bytes / 1e6:.1f} MB)")
