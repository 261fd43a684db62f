"""Kill a call before its n-th operation that changes files, as `kill -9` would."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR


def killed_before(n: int, call: Callable[[], object], under: Path) -> bool:
    """Run `call` in a fork that dies before its n-th change under a folder; False if it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.addaudithook(_Counter(n, str(under)))
            call()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the call itself failed"
    return False


class _Counter:
    """Counts audit events of changes; the n-th ends the process before it happens."""

    def __init__(self, n: int, under: str) -> None:
        self.left, self.under = n, under

    def __call__(self, event: str, arguments: tuple) -> None:
        changes = event in CHANGES or (event == "open" and (arguments[2] or 0) & WRITES)
        if changes and self.under in str(arguments[0]):
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)


def tree(folder: Path, but: str = "making") -> dict[str, bytes]:
    """The files under a folder and their bytes; locks and `but` play no part."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".locks", but} & set(path.relative_to(folder).parts)
    }
