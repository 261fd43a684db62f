"""The lock of a snapshot, which its readers share; gc deletes none that is read."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from xmore.files.locks import read_locked


def lock_of(memory: Path, name: str) -> Path:
    """Return the path of the lock that readers of a snapshot share."""
    return memory / ".locks" / f"{name}.lock"


def in_use(memory: Path, name: str) -> AbstractContextManager[None]:
    """Hold a shared lock on a snapshot while it is read, if anything can be locked there."""
    return read_locked(lock_of(memory, name))
