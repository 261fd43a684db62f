"""Advisory locks between processes: the kernel releases them even after `kill -9`."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xmore.files.errors import LockedError

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, shared: bool = False, refuse: str | None = None) -> Iterator[int]:
    """Hold `path` locked, waiting for whoever holds it now; says so once if it has to wait.

    The value is the file descriptor. With `refuse`, raises LockedError(refuse) instead of waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if refuse:
                raise LockedError(refuse) from None
            log.warning("waiting for another process that works on %s", path.stem)
            fcntl.flock(stream, kind)
        yield stream.fileno()


def is_locked(path: Path) -> bool:
    """Whether some process holds `path`, shared or not."""
    if not path.exists():
        return False
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
