"""A memory's history: which snapshot was published when, and what it cost to build.

    <memory>/history.jsonl    one line per event, oldest first

An event is `published`, `rolled back`, or `checked`: a re-index tried rows again and found the
snapshot that was there.

Times and costs are recorded here and not in a snapshot, so that equal content has equal files.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index_build.base.lines import read_lines, with_events
from xmore.files.errors import SnapshotError, is_shortage
from xmore.files.paths import write_whole

FILE = "history.jsonl"


def read(memory: Path) -> list[dict[str, Any]]:
    """Read all events, oldest first. Raises SnapshotError."""
    path = memory / FILE
    if not path.exists():
        return []
    try:
        events = read_lines(path)
        if any(not isinstance(e.get("seconds", {}), dict) for e in events):
            raise ValueError("`seconds` is no object")
        return [{"event": str(e["event"]), "snapshot": str(e["snapshot"]), **e} for e in events]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if is_shortage(error):
            raise
        raise SnapshotError(
            f"{path}: cannot be read ({error}). `xmore memory verify {memory} --all --repair` "
            "moves damaged lines aside."
        ) from error


def append(memory: Path, event: str, snapshot: str, **facts: Any) -> None:
    """Add an event that happens now."""
    write_whole(memory / FILE, with_event(memory, event, snapshot, **facts))


def with_event(memory: Path, event: str, snapshot: str, **facts: Any) -> bytes:
    """Return the file's content with an event that happens now at its end. Raises SnapshotError."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    read(memory)  # nothing is added to a file that cannot be read
    return with_events(memory / FILE, [{"event": event, "snapshot": snapshot, "at": now, **facts}])


def names(memory: Path) -> list[str]:
    """Return the names of the existing snapshots, newest first."""
    published = {e["snapshot"]: i for i, e in enumerate(read(memory)) if e["event"] == "published"}
    folder = memory / "snapshots"
    paths = folder.iterdir() if folder.is_dir() else ()
    existing = [path.name for path in paths if _is_snapshot(path)]
    return sorted(existing, key=lambda name: (-published.get(name, -1), name))


def published(memory: Path) -> set[str]:
    """Return the snapshots whose publication is recorded."""
    return {str(e["snapshot"]) for e in read(memory) if e["event"] == "published"}


def withdrawn(memory: Path) -> set[str]:
    """Return the snapshots that were rolled back from; a re-index does not return to them."""
    left: set[str] = set()
    for event in read(memory):
        if event["event"] == "rolled back":
            left.add(str(event.get("left")))
            left.discard(event["snapshot"])
        elif event["event"] == "published":
            left.discard(event["snapshot"])
    return left


def rates(memory: Path) -> dict[str, float]:
    """Return the rates of earlier runs: rows per second by step, and bytes per image.

    The keys are `download`, `embed` and `image_bytes`; those that were not measured are absent.
    """
    totals: dict[str, float] = {}
    for event in read(memory):
        for key in ("fetched", "embedded", "image_bytes", "images"):
            totals[key] = totals.get(key, 0) + event.get(key, 0)
        for step, seconds in event.get("seconds", {}).items():
            totals[f"{step}_seconds"] = totals.get(f"{step}_seconds", 0) + seconds
    found = {}
    for rate, rows, seconds in (
        ("download", "fetched", "download_seconds"),
        ("embed", "embedded", "embed_seconds"),
        ("image_bytes", "image_bytes", "images"),
    ):
        if totals.get(rows, 0) > 0 and totals.get(seconds, 0) > 0:
            found[rate] = totals[rows] / totals[seconds]
    return found


def _is_snapshot(path: Path) -> bool:
    hidden = path.name.startswith(".")  # half deleted, by a killed gc
    return not hidden and ".broken-" not in path.name and (path / "manifest.json").exists()
