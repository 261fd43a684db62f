"""`xmore verify`: every byte that a run rests on, against the hashes that were written."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from index_build.snapshot import verify_snapshot
from xmore.errors import SnapshotError
from xmore.memory import open_snapshot
from xmore.runs import Run
from xmore.store import BAR, check_hashes, move_aside


def verify_run(run: Run, repair: bool) -> list[str]:
    """Faults of a run's artifacts and snapshot; `repair` moves damaged artifacts aside."""
    faults = []
    for path in tqdm(
        {ref.path: None for ref in run.artifacts}, "verifying", unit="artifact", **BAR
    ):
        found = check_hashes(Path(path))
        faults += found
        if found and repair and Path(path).exists():
            move_aside(Path(path))
    try:
        snapshot = open_snapshot(Path(run.snapshot["memory"]), run.snapshot["name"])
    except SnapshotError as error:
        return [*faults, str(error)]
    return faults + verify_snapshot(snapshot)
