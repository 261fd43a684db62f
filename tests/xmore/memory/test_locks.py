"""The lock of a snapshot: only who cannot write at all reads without it."""

import errno
from contextlib import nullcontext
from pathlib import Path

import pytest

from xmore.memory.locks import in_use


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
def test_only_a_read_only_memory_is_read_without_a_lock(tmp_path, monkeypatch, number):
    def fail(path, mode):
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "open", fail)
    fails = number in (errno.ENOSPC, errno.EIO)
    expected = pytest.raises(OSError, match="refused") if fails else nullcontext()
    with expected, in_use(tmp_path, "snapshot"):
        assert not fails
