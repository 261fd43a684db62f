"""What of a run is absent on purpose: deleted after a take-down, or left out when it was packed."""

from __future__ import annotations

import logging
from pathlib import Path

from xmore.files.errors import RunError
from xmore.results.runs import Run
from xmore.store.artifacts import ArtifactRef

log = logging.getLogger(__name__)

# Stages whose artifacts are deleted if they hold a row that was taken down.
REMOVABLE = ("candidates", "captions", "leaks")


def is_absent(ref: ArtifactRef) -> bool:
    """Return whether an artifact was left out, or deleted: the run's numbers are in others."""
    return is_left_out(ref) or is_removed(ref)


def is_removed(ref: ArtifactRef) -> bool:
    """Return whether an artifact was deleted that may be."""
    path = Path(ref.path)
    if ref.left_out or ref.stage not in REMOVABLE or path.exists():
        return False
    return not any(path.parent.glob(f"{path.name}.broken-*"))  # else it was damaged


def is_left_out(ref: ArtifactRef) -> bool:
    """Return whether an artifact was left out when its run was packed, and not made since."""
    return ref.left_out and not Path(ref.path).exists()


def left_out(run: Run) -> list[str]:
    """Return the stages of which something was left out, in order; none of a run made here."""
    return list(dict.fromkeys(ref.stage for ref in run.artifacts if is_left_out(ref)))


def warn_of_left_out(run: Run) -> None:
    """Log one warning if something was left out: whoever asks for it sees nothing."""
    if lacking := left_out(run):
        what = "run %s: left out when it was packed, so empty here: %s"
        log.warning(what, run.name, ", ".join(lacking))


def require(run: Run, *stages: str) -> None:
    """Raise RunError if artifacts of these stages were left out when the run was packed."""
    lacking = [stage for stage in left_out(run) if stage in stages]
    if lacking:
        raise RunError(
            f"run {run.name}: left out when it was packed: {', '.join(lacking)}, which this needs. "
            "`xmore show`, `sql`, `compare` and `report --output FOLDER` read what is there."
        )
