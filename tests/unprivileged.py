"""What another user would meet: files whose permissions hold for root, too."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION, THIS_THREAD = 0x20080522, 0
OVERRIDES = 0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER


@contextmanager
def unprivileged() -> Iterator[None]:
    """This thread, and those that it starts, obey permissions as long as the block runs."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION, THIS_THREAD)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    assert libc.capget(header, before) == 0
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~OVERRIDES
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder and all under it can be read and not be changed, as by another user."""
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & ~0o222)
    try:
        with unprivileged():
            yield
    finally:
        for path in paths:
            path.chmod(modes[path])
