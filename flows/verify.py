"""`xmore verify`: every byte that a run rests on, against the hashes that were written."""

from __future__ import annotations

from pathlib import Path

from index_build.snapshot import verify_snapshot
from xmore.adopt import open_memory
from xmore.errors import SnapshotError
from xmore.progress import track
from xmore.runs import Run
from xmore.store import check_hashes, move_aside


def verify_run(run: Run, repair: bool) -> list[str]:
    """Faults of a run's artifacts and snapshot; `repair` moves damaged artifacts aside."""
    faults = []
    for path in track(sorted({ref.path for ref in run.artifacts}), "verifying", "artifact"):
        found = check_hashes(Path(path))
        faults += found
        if found and repair and Path(path).exists():
            move_aside(Path(path))
    try:
        memory, cache = Path(run.snapshot["memory"]), Path(run.config["results"]) / "cache"
        with open_memory(memory, cache, run.snapshot["name"]) as snapshot:
            return faults + verify_snapshot(snapshot)
    except SnapshotError as error:
        return [*faults, str(error)]
