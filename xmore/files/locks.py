"""Advisory locks between processes: the kernel releases them even after `kill -9`."""

from __future__ import annotations

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from xmore.files.errors import LockedError, is_shortage

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, refuse: str | None = None) -> Iterator[int]:
    """Hold a lock on `path`; if another process holds it, log one warning and wait.

    Yields the file descriptor. With `refuse`, raises LockedError(refuse) instead of waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        _acquire(stream, fcntl.LOCK_EX, path, refuse)
        yield stream.fileno()


@contextmanager
def read_locked(path: Path) -> Iterator[None]:
    """Share a lock on `path` with other readers, waiting for a writer as `locked` does.

    Where this process may lock nothing, as on a read-only disk, it reads without a lock.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(_opened(path))
            _acquire(stream, fcntl.LOCK_SH, path, None)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise  # such as a full disk: a writer could delete what is read without a lock
            log.debug("%s: %s; read without a lock", path, error)
        yield


def is_locked(path: Path) -> bool:
    """Return whether any process holds a lock on `path`, shared or exclusive.

    False if this process cannot ask.
    """
    try:
        if not path.exists():
            return False
        with _opened(path) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if is_shortage(error):
            raise  # a writer could delete what another process reads
        log.debug("%s: %s; taken as not locked", path, error)
    return False


def _acquire(stream: IO[Any], kind: int, path: Path, refuse: str | None) -> None:
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if refuse:
            raise LockedError(refuse) from None
        log.warning("waiting for another process that is working on %s", path.stem)
        fcntl.flock(stream, kind)


def _opened(path: Path) -> IO[Any]:
    try:
        return path.open("a")  # NFS locks only what may be written
    except OSError:
        with suppress(OSError):
            return path.open("rb")
        raise
