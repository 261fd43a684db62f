"""The commands that keep things in order: up, down, doctor, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import RESULTS, Results, RunName
from xmore.files.errors import RunError


def up(port: Annotated[int, typer.Option(help="Of Prefect's server.")] = 4200) -> None:
    """Start Prefect's server and a worker, and deploy the flows."""
    from flows.cli import services
    from flows.cli.terminal.upkeep import show_up

    show_up(services.up(port), services.HOME)


def down() -> None:
    """End all that `xmore up` has started."""
    from flows.cli import services

    ended = services.down()
    print(f"ended: {', '.join(ended)}" if ended else "nothing was running")


def doctor(results: Results = RESULTS) -> None:
    """Check what this installation needs; one line each, and what to do."""
    from flows.cli.doctor import examine, show_checks

    if show_checks(examine(results)):
        raise typer.Exit(1)


def verify(
    run: RunName,
    results: Results = RESULTS,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged artifacts aside, to be made again.")
    ] = False,
) -> None:
    """Read every byte of a run's artifacts and snapshot and compare the hashes."""
    from flows.cli.terminal.upkeep import show_faults
    from flows.upkeep import verify_run
    from xmore.results.runs import load_run

    found = load_run(results, run)
    if found.status != "completed":
        raise RunError(f"run {found.name} is {found.status}: only a completed one can be whole.")
    if show_faults(found, verify_run(found, repair), repair):
        raise typer.Exit(1)
