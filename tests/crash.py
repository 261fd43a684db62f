"""Crash a call at its n-th system call that changes a file: kill it, or let that call fail.

Calls of all threads and processes that it starts count, in whatever library. A seccomp filter stops
each of them until the process that forked the call lets it go on; those that only read never stop.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import warm

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
FD, PATH, AT = "fd", "path", "at"  # what an argument is; AT: a folder's descriptor, then a path
# x86_64's number of each call -> its name, and its arguments that name a file and their places.
CALLS = {
    74: ("fsync", FD, 0),
    75: ("fdatasync", FD, 0),
    76: ("truncate", PATH, 0),
    77: ("ftruncate", FD, 0),
    82: ("rename", PATH, 0, PATH, 1),
    83: ("mkdir", PATH, 0),
    84: ("rmdir", PATH, 0),
    85: ("creat", PATH, 0),
    86: ("link", PATH, 0, PATH, 1),
    87: ("unlink", PATH, 0),
    88: ("symlink", PATH, 1),
    258: ("mkdirat", AT, 0),
    263: ("unlinkat", AT, 0),
    264: ("renameat", AT, 0, AT, 2),
    265: ("linkat", AT, 0, AT, 2),
    266: ("symlinkat", AT, 1),
    316: ("renameat2", AT, 0, AT, 2),
    437: ("openat2", AT, 0),
}
OPENS = {2: ("open", PATH, 0), 257: ("openat", AT, 0)}  # counted if they may write
FLAGS = {2: 1, 257: 2}  # the place of their flags
IN_VAIN = {"mkdir": True, "unlink": False}  # what changes nothing where a path exists, or does not
RECEIVE, SEND, GO_ON = 0xC0502100, 0xC0182101, 1
LIBC = ctypes.CDLL(None, use_errno=True)
PATIENCE = 200  # seconds for a call


@dataclass
class Ended:
    """How a call ended."""

    code: int | None = None  # the exit code; minus the signal that ended it
    said: str = ""  # its output and errors
    calls: list[str] = field(default_factory=list)  # those that count, up to the n-th
    reached: bool = False  # whether there was an n-th
    late: str = ""  # that it did not end by itself


def run(
    call: Callable[[], object], under: Path, n: int = 0, fault: int = 0, opens: bool = False
) -> Ended:
    """Run `call` in a fork. Before its n-th change under a folder it is killed with all its
    processes; with `fault`, an errno, that change fails with it instead, and the others do not.

    With `opens`, what counts is each opening of a file under the folder, to read or to write.

    One that does not end in PATIENCE is killed. Raises OSError if the kernel has no such filter.
    """
    ours, theirs = socket.socketpair()
    with open(os.memfd_create("said"), "w+b") as said, ours:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            warm.run_to_end(lambda: _filtered(call, theirs, opens))
        theirs.close()
        ended = Ended()
        try:
            listeners = socket.recv_fds(ours, 1, 1)[1]
            for listener in listeners:
                _watch(listener, child, os.path.realpath(under), n, fault, ended)
                os.close(listener)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _reap(child, ended, 0)
        said.seek(0)
        ended.said = said.read().decode(errors="replace") + ended.late
    if not listeners:
        raise OSError(ended.said.strip().rpartition("\n")[2])
    return ended


def refused() -> str:
    """Why this machine cannot count system calls; empty if it can."""
    if os.uname().machine != "x86_64":
        return f"the numbers of system calls are x86_64's, not {os.uname().machine}'s"
    try:
        run(lambda: None, Path("/nowhere"))
    except OSError as error:
        return f"no seccomp filter that asks another process: {error}"
    return ""


def _watch(listener: int, child: int, under: str, n: int, fault: int, ended: Ended) -> None:
    """Let calls go on until all processes of the child have ended."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    until = time.monotonic() + PATIENCE
    while True:
        ready = poll.poll(50)
        if not ready:
            _reap(child, ended, os.WNOHANG)  # older kernels keep the filter of who is not reaped
        if time.monotonic() > until:
            ended.late = f"no end in {PATIENCE} seconds"
            return
        if ready and ready[0][1] & select.POLLHUP:
            return  # nobody is left
        if not ready or not ready[0][1] & select.POLLIN or (ended.reached and not fault):
            continue  # what is asked after the kill is never answered
        asked = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, asked)
        except FileNotFoundError:
            continue  # who asked has ended
        number, thread, _, call, _, _, *arguments = struct.unpack("QIIiIQ6Q", asked)
        answer = struct.pack("QqiI", number, 0, 0, GO_ON)
        changed = None if ended.reached else _changed(thread, call, arguments, under)
        if changed:
            ended.calls.append(changed)
            if len(ended.calls) == n:
                ended.reached = True
                if not fault:
                    os.killpg(child, signal.SIGKILL)
                    continue
                answer = struct.pack("QqiI", number, 0, -fault, 0)
        with contextlib.suppress(FileNotFoundError):
            fcntl.ioctl(listener, SEND, answer)


def _reap(child: int, ended: Ended, how: int) -> None:
    if ended.code is None:
        pid, status = os.waitpid(child, how)
        ended.code = os.waitstatus_to_exitcode(status) if pid else None


def _filtered(call: Callable[[], object], to: socket.socket, opens: bool) -> None:
    """Call under the filter; who is asked goes to another process."""
    listener = _filter(opens)
    socket.send_fds(to, [b"."], [listener])
    os.close(listener)
    to.close()
    call()


def _changed(thread: int, call: int, arguments: list[int], under: str) -> str | None:
    """What a call changes under a folder, as text."""
    name, *kinds = (CALLS | OPENS)[call]
    try:
        if name == "openat2" and not _read(thread, arguments[2], 8)[0] & WRITES:
            return None
        pairs = zip(kinds[::2], kinds[1::2], strict=True)
        paths = [_path(thread, kind, arguments[place:]) for kind, place in pairs]
    except OSError:
        return None  # it has ended
    inside = [path for path in paths if path.startswith(f"{under}/") or path == under]
    if not inside or os.path.lexists(inside[0]) == IN_VAIN.get(name.removesuffix("at")):
        return None
    return f"{name} {inside[-1].removeprefix(under)}"


def _path(thread: int, kind: str, arguments: list[int]) -> str:
    if kind == FD:
        return os.readlink(f"/proc/{thread}/fd/{arguments[0] & 0xFFFFFFFF}")
    folder = ctypes.c_int(arguments[0]).value if kind == AT else -100  # AT_FDCWD
    text = os.fsdecode(_read(thread, arguments[kind == AT], 4096).split(b"\0")[0])
    place = f"/proc/{thread}/cwd" if folder == -100 else f"/proc/{thread}/fd/{folder}"
    return os.path.normpath(text if text[:1] == "/" else f"{os.readlink(place)}/{text}")


def _read(thread: int, address: int, most: int) -> bytes:
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), most, address)


def _filter(opens: bool) -> int:
    """Stop this process and those that it starts at each such call; returns who is asked."""
    load, equal, anyof, give = 0x20, 0x15, 0x45, 0x06  # of classic BPF
    ask, allow = (give, 0, 0, 0x7FC00000), (give, 0, 0, 0x7FFF0000)
    program = [(load, 0, 0, 4), (equal, 1, 0, 0xC000003E), allow, (load, 0, 0, 0)]
    for call in OPENS if opens else CALLS:
        program += [(equal, 0, 1, call), ask]
    for call, place in {} if opens else FLAGS.items():
        flags = (load, 0, 0, 16 + 8 * place)
        program += [(equal, 0, 4, call), flags, (anyof, 0, 1, WRITES), ask, allow]
    code = b"".join(struct.pack("HBBI", *each) for each in [*program, allow])
    held = ctypes.create_string_buffer(code)
    whole = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held))
    LIBC.prctl(38, 1, 0, 0, 0)  # no new privileges: else only root may filter
    listener = LIBC.syscall(317, 1, 8 | 32, whole)  # a new listener; signals do not ask twice
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


class Forked(subprocess.Popen):
    """A download whose process is forked from this one, not started: the filter stays, too."""

    def _execute_child(self, *given) -> None:
        environment, pipes = given[6], given[10:16]
        taken_in, kept_in, _, out, _, errors = pipes
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.close(kept_in)
            _close_locks()  # as where it is started: what is killed holds none
            for number, stream in enumerate((taken_in, out, errors)):
                os.dup2(stream, number)
            os.environ.clear()
            os.environ.update(environment)
            warm.run_to_end(warm.run_download)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def _close_locks() -> None:
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").endswith(".lock"):
                os.close(int(number))


FORKING = SimpleNamespace(**vars(subprocess) | {"Popen": Forked})
