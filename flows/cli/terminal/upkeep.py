"""What `xmore up` and `verify` print."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.cli.terminal.console import record, safe, say
from flows.verify import Verified
from xmore.report.table import size


def show_up(api: str, logs: Path, wait: bool) -> None:
    """Print the server's address, the next commands to run, and how to stop."""
    prefect, xmore = (Path(sys.executable).with_name(name) for name in ("prefect", "xmore"))
    shell, stop = ("another", "Ctrl+C") if wait else ("this", f"{xmore} down")
    for line in (
        f"Prefect is up: {api.removesuffix('/api')} (logs in {logs}). Next, in {shell} shell:",
        f"  export PREFECT_API_URL={api}",
        f"  {prefect} deployment run xmore-reindex/xmore-reindex --watch",
        f"  {prefect} deployment run xmore-benchmark/xmore-benchmark --watch",
        f"Stop it with: {stop}",
    ):
        say(safe(line))


BEYOND = "No repair ends this; each line says what does."
RESULTS_NEXT = (
    "Run the benchmark again: it rebuilds what is absent.",
    "`--repair` moves damaged artifacts aside, and the next run rebuilds them; it puts single "
    "flipped bits of run.json right, and deletes damaged caches.",
)
MEMORY_NEXT = (
    "Run `xmore reindex`: it makes again what is absent. `xmore memory gc` deletes what was moved "
    "aside in batches.",
    "`--repair` puts single flipped bits of small files right, and moves what else is damaged "
    "aside; the next `xmore reindex` makes it again.",
)


def record_verified(done: Verified) -> None:
    """Add what was read, damaged and repaired to the JSON."""
    record("damaged", ({"problem": problem} for problem in done.problems))
    record("absent", ({"what": each} for each in done.absent))
    record("moved", ({"path": path} for path in done.moved))
    record("aside", ({"path": path} for path in done.aside))
    record("repaired", ({"path": path} for path in done.mended))
    record("read", [{"things": done.things, "bytes": done.bytes}])


def show_verified(
    done: Verified, what: str, repair: bool, to_do: tuple[str, str] = RESULTS_NEXT
) -> bool:
    """Print what is damaged, or that nothing is. Returns whether something still is.

    `to_do` is what to do next after a repair has moved something aside, and without one.
    """
    record_verified(done)
    for problem in done.problems:
        say(f"damaged: {safe(problem)}")
    for what_is_gone in done.absent:
        say(f"not read: {safe(what_is_gone)}")
    for path in done.moved:
        say(f"moved aside: {safe(str(path))}")
    for path in done.mended:
        say(f"repaired: {safe(str(path))}")
    read = f"{done.things:,} artifacts and files, {size(done.bytes)} read"
    if not done.problems:
        say(safe(f"{what}: intact ({read})."))
    elif not done.left:
        say(safe(f"{what}: whole again ({read})."))
    elif set(done.left) <= set(done.beyond):
        say(safe(f"{read}. {BEYOND}"))
    else:
        say(safe(f"{read}. {to_do[0] if repair else to_do[1]}"))
    if done.aside:
        names = f"{len(done.aside):,} earlier moved aside as damaged, such as {done.aside[0]}"
        say(safe(f"{names}: no run reads them; delete them when you like."))
    return bool(done.left)
