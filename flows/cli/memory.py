"""The commands `xmore memory`. Heavy libraries are imported by the commands that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import RESULTS, AllColumns, Commands, ConfigFile, Results, with_json

commands = Commands(
    help="Plan, list, show, compare, verify, roll back and clean up memories.",
    no_args_is_help=True,
)

take_downs = Commands(
    help="Take rows down for good, list what is taken down, and let rows come back.",
    no_args_is_help=True,
)
commands.add_typer(take_downs, name="takedown")


def _is_there(memory: Path) -> Path:
    """Return the folder. A misspelt one would look like a memory of which nothing is taken down."""
    from xmore.memory.snapshot import check_there

    check_there(memory)
    return memory


MemoryFolder = Annotated[
    Path,
    typer.Argument(
        help="Folder of a memory; it contains CURRENT.", show_default=False, callback=_is_there
    ),
]
SnapshotName = Annotated[
    str | None,
    typer.Argument(
        help="Name of a snapshot, or the beginning of it. Default: the memory's CURRENT."
    ),
]


@commands.command("plan")
@with_json
def plan(config: ConfigFile) -> None:
    """Estimate the rows, bytes and hours of a re-index of CONFIG; nothing is downloaded."""
    from flows.cli.terminal.memory import show_estimate
    from flows.upkeep import estimate_reindex
    from xmore.config.load import load_config
    from xmore.config.memory import ReindexConfig

    show_estimate(estimate_reindex(load_config(config, ReindexConfig)))


@commands.command("list")
@with_json
def list_(memory: MemoryFolder, all_columns: AllColumns = False) -> None:
    """List a memory's snapshots, newest first."""
    from flows.cli.terminal.memory import show_entries
    from flows.upkeep import entries

    show_entries(entries(memory), all_columns)


@commands.command("show")
@with_json
def show(memory: MemoryFolder, snapshot: SnapshotName = None) -> None:
    """Print a snapshot's card: rows, failures by cause, success by host, model, index."""
    from flows.cli.terminal.memory import show_card
    from flows.upkeep import find

    show_card(find(memory, snapshot))


@commands.command("diff")
@with_json
def diff(
    memory: MemoryFolder,
    a: Annotated[str, typer.Argument(help="Name of a snapshot, or the beginning of it.")],
    b: Annotated[str, typer.Argument(help="Name of another snapshot.")],
) -> None:
    """Compare two snapshots: print the rows that both have, or only one, and other differences."""
    from flows.cli.terminal.memory import show_difference
    from flows.upkeep import compare, find

    one, other = find(memory, a), find(memory, b)
    show_difference(one, other, compare(one, other))


@commands.command("rollback")
@with_json
def rollback(
    memory: MemoryFolder,
    to: Annotated[
        str | None,
        typer.Option(help="Name of a snapshot, or the beginning of it. Default: the previous one."),
    ] = None,
) -> None:
    """Point CURRENT to an earlier snapshot; running benchmarks keep theirs."""
    from flows.cli.terminal.console import record, safe, say
    from flows.upkeep import roll_back

    old, new = roll_back(memory, to)
    record("current", [{"before": old, "after": new}])
    say(safe(f"CURRENT: {old} -> {new}"))
    say(safe(f"A re-index will not return to {old} unless its sources change."))


@take_downs.command("add")
@with_json
def take_down(
    memory: MemoryFolder,
    values: Annotated[
        list[str], typer.Argument(help="URLs, row_keys, or sha256 of images.", show_default=False)
    ],
    reason: Annotated[str, typer.Option(help="Why; kept with the time.")] = "",
) -> None:
    """Take rows down: the next re-index removes them, and they do not come back."""
    from flows.cli.terminal.console import record, safe, say
    from flows.upkeep import take_down as add

    for value, known in add(memory, values, reason):
        record("takedowns", [{"value": value, "new": not known}])
        say(safe(f"{'already taken down' if known else 'taken down'}: {value}"))
    say("Next: `xmore memory takedown traces` lists what results still hold of them,")
    say("`xmore reindex CONFIG` removes them, and `xmore memory gc` deletes their bytes.")


@take_downs.command("list")
@with_json
def list_take_downs(memory: MemoryFolder) -> None:
    """List what is taken down: when, why, and which images follow from a URL."""
    from flows.cli.terminal.memory import show_take_downs
    from index_build.base.takedown import current

    show_take_downs(list(current(memory).values()))


@take_downs.command("traces")
@with_json
def traces(
    memory: MemoryFolder,
    results: Results = RESULTS,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete them; the next run makes them again.")
    ] = False,
) -> None:
    """List what results still hold of rows that were taken down: artifacts, pages, caches."""
    from flows.cli.terminal.memory import show_traces
    from index_build.upkeep.traces import find_traces, remove_traces

    found = find_traces(memory, results)
    if remove:
        remove_traces(results, found)
    show_traces(found, str(results), remove)


@take_downs.command("reinstate")
@with_json
def reinstate(
    memory: MemoryFolder,
    value: Annotated[str, typer.Argument(help="A value of the list.", show_default=False)],
) -> None:
    """Let a value that was taken down come back, with the images that follow from it."""
    from flows.cli.terminal.console import record, safe, say
    from flows.upkeep import reinstate as let_back

    for each in let_back(memory, value):
        record("reinstated", [{"value": each}])
        say(safe(f"reinstated: {each}"))
    say(safe("The next re-index requests its rows again, if its sources still list them."))


@commands.command("verify")
@with_json
def verify(
    memory: MemoryFolder,
    snapshot: SnapshotName = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Verify all snapshots, all batches and the history.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="With --all: repair it, or let `xmore reindex` do so."),
    ] = False,
) -> None:
    """Read every byte of a snapshot, check each row, and print what is damaged."""
    from flows.cli.terminal.console import safe, say
    from flows.cli.terminal.upkeep import MEMORY_NEXT, record_verified, show_verified
    from flows.upkeep import check, find
    from flows.verify import Verified
    from xmore.files.errors import SnapshotError
    from xmore.report.table import size

    if repair and not everything:
        raise SnapshotError("--repair needs --all.")
    if everything:
        from flows.verify_memory import verify_memory

        if show_verified(verify_memory(memory, repair), str(memory), repair, MEMORY_NEXT):
            raise typer.Exit(1)
        return
    found = find(memory, snapshot)
    problems = check(found)
    files = found.manifest["files"]
    count = sum(file["bytes"] for file in files)
    record_verified(Verified(1, count, problems))
    for problem in problems:
        say(safe(f"damaged: {problem}"))
    if problems:
        say(
            safe(
                f"Snapshots share files: `xmore memory verify {memory} --all` finds what else is "
                "damaged. With --repair, the next `xmore reindex` makes it again."
            )
        )
        raise typer.Exit(1)
    read = f"{found.rows:,} rows in {len(files)} files are intact ({size(count)} read)."
    say(safe(f"{found.name}: {read}"))


@commands.command("gc")
@with_json
def gc(
    memory: MemoryFolder,
    keep: Annotated[int, typer.Option(min=1, help="Number of newest snapshots to keep.")] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be deleted.")
    ] = False,
) -> None:
    """Delete old snapshots and, permanently, the data of rows that left the memory."""
    from flows.cli.terminal.memory import show_freed
    from index_build.upkeep.gc import collect

    show_freed(collect(memory, keep, dry_run), dry_run)
