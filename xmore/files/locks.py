"""Advisory locks between processes: the kernel releases them even after `kill -9`."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from xmore.files.errors import LockedError

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, shared: bool = False, refuse: str | None = None) -> Iterator[int]:
    """Hold a lock on `path`; if another process holds it, log one warning and wait.

    Yields the file descriptor. With `refuse`, raises LockedError(refuse) instead of waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if refuse:
                raise LockedError(refuse) from None
            log.warning("waiting for another process that is working on %s", path.stem)
            fcntl.flock(stream, kind)
        yield stream.fileno()


def is_locked(path: Path) -> bool:
    """Return whether any process holds a lock on `path`, shared or exclusive."""
    if not path.exists():
        return False
    with _opened(path) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _opened(path: Path) -> IO[Any]:
    try:
        return path.open("a")  # NFS locks only what may be written
    except OSError:
        return path.open("rb")
