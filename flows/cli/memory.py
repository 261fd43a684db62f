"""The commands `xmore memory`: heavy libraries are imported by the commands that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigFile

commands = typer.Typer(
    help="What a memory holds, what changed, and its upkeep.", no_args_is_help=True
)

MemoryFolder = Annotated[
    Path, typer.Argument(help="Folder of the memory, with CURRENT in it.", show_default=False)
]
SnapshotName = Annotated[
    str | None, typer.Argument(help="A snapshot, or the beginning of its name; none: CURRENT.")
]


@commands.command("plan")
def plan(config: ConfigFile) -> None:
    """Say what a re-index of CONFIG would come to, before anything is downloaded."""
    from flows.cli.terminal.memory import show_estimate
    from flows.upkeep import foresee
    from xmore.config.load import load_config
    from xmore.config.memory import ReindexConfig

    show_estimate(foresee(load_config(config, ReindexConfig)))


@commands.command("list")
def list_(memory: MemoryFolder) -> None:
    """The memory's snapshots, the newest first."""
    from flows.cli.terminal.memory import show_entries
    from flows.upkeep import entries

    show_entries(entries(memory))


@commands.command("show")
def show(memory: MemoryFolder, snapshot: SnapshotName = None) -> None:
    """A snapshot's card: rows, failures by cause, success by host, model, index."""
    from flows.cli.terminal.memory import show_card
    from flows.upkeep import find

    show_card(find(memory, snapshot))


@commands.command("diff")
def diff(
    memory: MemoryFolder,
    a: Annotated[str, typer.Argument(help="A snapshot, or the beginning of its name.")],
    b: Annotated[str, typer.Argument(help="Another.")],
) -> None:
    """What two snapshots share, and what each has alone."""
    from flows.cli.terminal.memory import show_difference
    from flows.upkeep import compare, find

    one, other = find(memory, a), find(memory, b)
    show_difference(one, other, compare(one, other))


@commands.command("rollback")
def rollback(
    memory: MemoryFolder,
    to: Annotated[str | None, typer.Option(help="A snapshot; by default the one before.")] = None,
) -> None:
    """Point CURRENT to an earlier snapshot; running benchmarks keep theirs."""
    from flows.cli.terminal.console import safe, say
    from flows.upkeep import roll_back

    left, now = roll_back(memory, to)
    say(safe(f"CURRENT: {left} -> {now}"))
    say("A re-index whose sources are unchanged will not bring it back.")


@commands.command("verify")
def verify(memory: MemoryFolder, snapshot: SnapshotName = None) -> None:
    """Read every byte of a snapshot and look at each row."""
    from flows.cli.terminal.console import safe, say
    from flows.upkeep import check, find

    found = find(memory, snapshot)
    faults = check(found)
    for fault in faults:
        say(safe(f"damaged: {fault}"))
    if faults:
        say(f"Go back to another (xmore memory rollback {safe(str(memory))}), or make it anew.")
        raise typer.Exit(1)
    files = len(found.manifest["files"])
    say(safe(f"{found.name}: {found.rows:,} rows in {files} files are whole."))


@commands.command("gc")
def gc(
    memory: MemoryFolder,
    keep: Annotated[int, typer.Option(min=1, help="Newest snapshots that stay.")] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be freed.")
    ] = False,
) -> None:
    """Remove old snapshots, and for good the bytes of rows that left the memory."""
    from flows.cli.terminal.memory import show_freed
    from index_build.upkeep.gc import collect

    show_freed(collect(memory, keep, dry_run), dry_run)
