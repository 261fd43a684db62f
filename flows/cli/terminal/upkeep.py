"""What `xmore up` and `verify` print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from flows.cli.terminal.console import console, safe
from xmore.results.runs import Run


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
        console.print(safe(line), soft_wrap=True, highlight=False)


def show_problems(run: Run, problems: Sequence[str], moved: Sequence[Path], repaired: bool) -> bool:
    """Print what is damaged, or that nothing is. Returns whether something is damaged."""
    for problem in problems:
        console.print(f"damaged: {safe(problem)}", soft_wrap=True, highlight=False)
    if not problems:
        count = len({ref.path for ref in run.artifacts})
        console.print(
            f"{run.name}: {count} artifacts and snapshot {run.snapshot['name']} are intact."
        )
    elif repaired:
        for path in moved:
            console.print(f"moved aside: {safe(str(path))}", soft_wrap=True, highlight=False)
        console.print("Run the benchmark again: it rebuilds what is absent.")
    else:
        console.print(f"To rebuild: xmore verify {run.name} --repair, then run the benchmark.")
    return bool(problems)
