"""The lock of a snapshot, which its readers share; gc deletes none that is read."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from xmore.files.locks import locked


def lock_of(memory: Path, name: str) -> Path:
    """Return the path of the lock that readers of a snapshot share."""
    return memory / ".locks" / f"{name}.lock"


def in_use(memory: Path, name: str) -> AbstractContextManager[object]:
    """Hold a shared lock on a snapshot while it is read, if the folder is writable."""
    lock = lock_of(memory, name)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise  # such as a full disk: gc could delete what is read without a lock
        return nullcontext()  # nobody can delete snapshots of a read-only memory either
    return locked(lock, shared=True)
