"""The commands for upkeep: up, down, doctor, verify."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Annotated

import typer

from flows.cli.options import RESULTS, Results, named_run, with_json
from xmore.files.errors import RunError


def up(
    port: Annotated[int, typer.Option(help="Port of Prefect's server.")] = 4200,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Stay until stopped, then stop what was started: for containers, systemd.",
        ),
    ] = False,
) -> None:
    """Start Prefect's server and a worker, deploy the flows, and print how to use them."""
    from flows.cli import services
    from flows.cli.terminal.console import safe, say
    from flows.cli.terminal.upkeep import show_up

    api, told = services.up(port)
    for line in told:
        say(safe(line))
    show_up(api, services.HOME, wait)
    if wait:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with suppress(KeyboardInterrupt):
                services.stay()
        finally:
            down()


def down() -> None:
    """Stop everything that `xmore up` started, and print what was stopped."""
    from flows.cli import services
    from flows.cli.terminal.console import safe, say

    stopped, told = services.down()
    none = f"nothing was running that `xmore up` has started in {services.HOME}"
    say(safe(f"stopped: {', '.join(stopped)}" if stopped else none))
    for line in told:
        say(safe(line))


@with_json
def doctor(results: Results = RESULTS) -> None:
    """Check this installation, and print one line per check with how to fix what fails."""
    from flows.cli.doctor import examine, show_checks

    if show_checks(examine(results)):
        raise typer.Exit(1)


@with_json
def verify(
    run: Annotated[
        str | None,
        typer.Argument(help="Name of a run, the beginning of it, or `latest`.", show_default=False),
    ] = None,
    results: Results = RESULTS,
    everything: Annotated[
        bool, typer.Option("--all", help="Verify the whole store and the files of all runs.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Move damaged artifacts aside; the next run rebuilds them."),
    ] = False,
) -> None:
    """Read every byte of a run's artifacts and snapshot, check hashes, and print the damage."""
    from flows.cli.terminal.upkeep import show_verified
    from flows.verify import verify_results, verify_run

    if (run is None) != everything:
        raise RunError("name a run to verify, or set --all for the store and all runs.")
    if everything:
        damaged = show_verified(verify_results(results, repair), str(results), repair)
    else:
        found = named_run(results, str(run))
        if found.status != "completed":
            raise RunError(f"run {found.name} is {found.status}. Name a completed run.")
        name = " and ".join(filter(None, (found.name, found.snapshot_name)))
        damaged = show_verified(verify_run(found, repair), name, repair)
    if damaged:
        raise typer.Exit(1)
