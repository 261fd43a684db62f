"""What `xmore up` and `verify` print."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.cli.terminal.console import safe, say
from flows.verify import Verified
from xmore.report.table import size


def show_up(api: str, logs: Path) -> None:
    """Print the server's address and the next commands to run."""
    prefect, xmore = (Path(sys.executable).with_name(name) for name in ("prefect", "xmore"))
    for line in (
        f"Prefect is up: {api.removesuffix('/api')} (logs in {logs}). Next, in this shell:",
        f"  export PREFECT_API_URL={api}",
        f"  {prefect} deployment run xmore-reindex/xmore-reindex --watch",
        f"  {prefect} deployment run xmore-benchmark/xmore-benchmark --watch",
        f"Stop it with: {xmore} down",
    ):
        say(safe(line))


def show_verified(done: Verified, what: str, repair: bool) -> bool:
    """Print what is damaged, or that nothing is. Returns whether something is damaged."""
    for problem in done.problems:
        say(f"damaged: {safe(problem)}")
    for path in done.moved:
        say(f"moved aside: {safe(str(path))}")
    read = f"{done.things:,} artifacts and files, {size(done.bytes)} read"
    if not done.problems:
        say(safe(f"{what}: intact ({read})."))
    elif repair:
        say(safe(f"{read}. Run the benchmark again: it rebuilds what is absent."))
    else:
        say(safe(f"{read}. `--repair` moves damaged artifacts aside; the next run rebuilds them."))
    return bool(done.problems)
