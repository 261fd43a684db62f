"""What `xmore up` and `verify` print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from flows.cli.terminal.console import console, safe
from xmore.results.runs import Run


def show_up(api: str, logs: Path) -> None:
    """Where the server is, and what to type next."""
    prefect, xmore = (Path(sys.executable).with_name(name) for name in ("prefect", "xmore"))
    for line in (
        f"Prefect is up: {api.removesuffix('/api')} (logs in {logs}). Now, in this shell:",
        f"  export PREFECT_API_URL={api}",
        f"  {prefect} deployment run xmore-reindex/xmore-reindex --watch",
        f"  {prefect} deployment run xmore-benchmark/xmore-benchmark --watch",
        f"End it with: {xmore} down",
    ):
        console.print(safe(line), soft_wrap=True, highlight=False)


def show_faults(run: Run, faults: Sequence[str], repaired: bool) -> bool:
    """Print what is damaged, or that nothing is; returns whether something is."""
    for fault in faults:
        console.print(f"damaged: {safe(fault)}", soft_wrap=True, highlight=False)
    if not faults:
        count = len({ref.path for ref in run.artifacts})
        console.print(
            f"{run.name}: {count} artifacts and snapshot {run.snapshot['name']} are whole."
        )
    elif repaired:
        console.print("Damaged artifacts were moved aside (.broken-<n>); run the benchmark again.")
    else:
        console.print(f"Make them again: xmore verify {run.name} --repair, then run the benchmark.")
    return bool(faults)
