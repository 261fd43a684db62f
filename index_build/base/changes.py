"""Changes of a memory's files that happen all or not at all, whenever the process is killed.

    <memory>/changes.json    what was decided and is perhaps not yet done; absent otherwise

New files are written beside the old ones first. Then one rename puts `changes.json` there: from
then on the change is decided, and whoever takes the memory's lock next completes it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmore.files.errors import SnapshotError
from xmore.files.locks import locked
from xmore.files.paths import fsync_dir, remove_folder, write_whole

JOURNAL = "changes.json"
REMOVED = ".removed"


@dataclass(frozen=True)
class Change:
    """A new file in the place of an old one; `new` is None if the old one is deleted."""

    target: Path
    new: Path | None


@contextmanager
def changing(memory: Path, busy: str) -> Iterator[dict[str, Any]]:
    """Hold the lock that every writer of a memory needs, with all decided changes completed.

    Yields the facts of a change that a killed process had left incomplete, {} if there is none.
    Raises LockedError with the message `busy` if another process holds the lock.
    """
    with locked(memory / ".locks" / "reindex.lock", refuse=f"{memory}: {busy}"):
        completed = _complete(memory)
        fsync_dir(memory)  # what was completed may not come back: it would undo what follows
        for leftover in memory.glob(".*.tmp"):  # of a killed process
            leftover.unlink()
        yield completed


def beside(path: Path) -> Path:
    """Return where to write the new file of a change; a later run removes it if it is stale."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def commit(memory: Path, changes: Sequence[Change], **facts: Any) -> None:
    """Make all changes, or none if the process is killed before they are decided.

    The new files are complete and durable. `facts` (JSON) describe the change to who completes it.
    """
    listed = [
        [str(change.target.relative_to(memory)), change.new and str(change.new.relative_to(memory))]
        for change in changes
    ]
    write_whole(memory / JOURNAL, json.dumps({"changes": listed, "facts": facts}).encode())
    _complete(memory)


def remove(path: Path) -> None:
    """Delete a folder so that a reader sees all of it or none; `clear_removed` does the rest."""
    aside = path.with_name(f".{path.name}{REMOVED}")
    remove_folder(aside)
    path.rename(aside)
    shutil.rmtree(aside)


def clear_removed(memory: Path) -> None:
    """Delete what killed processes left: folders half deleted, and new files never used."""
    for folder in (memory / "snapshots", memory / "batches", *(memory / "batches").glob("[0-9]*")):
        for path in folder.glob(f".*{REMOVED}"):
            shutil.rmtree(path)
    for path in (memory / "batches").rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def _complete(memory: Path) -> dict[str, Any]:
    journal = memory / JOURNAL
    try:
        decided = json.loads(journal.read_bytes())
        changes = [(memory / target, new and memory / new) for target, new in decided["changes"]]
        facts = dict(decided["facts"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotError(f"{journal}: damaged ({error}). Move it away.") from error
    for target, new in changes:
        if not target.resolve().is_relative_to(memory.resolve()):
            raise SnapshotError(f"{journal}: names {target}, which is outside. Move it away.")
        if new is None:
            target.unlink(missing_ok=True)
        elif new.exists():  # else it is in its place already
            os.replace(new, target)
    for folder in {target.parent for target, _ in changes if target.parent.is_dir()}:
        fsync_dir(folder)
    journal.unlink()  # nothing after it: who is killed here has to be told that all was done
    return facts
