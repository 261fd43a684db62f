"""Processes that start in no time: a server that has imported what is slow forks one for each.

A child is a process of its own, with its own streams, environment, directory and exit code, and can
be killed. It imports our modules itself, from wherever it is told. Only what others' modules read
of the environment when they are imported (Prefect its settings, the hub whether it is offline) is
the server's: tests of that start a real Python.

All workers of a session share one server. It ends when the last of them has.
"""

import atexit
import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

SLOW = (
    "torch",
    "torchvision",
    "open_clip",
    "timm",
    "transformers.models.bert.modeling_bert",
    "prefect.artifacts",
    "prefect.flows",
    "prefect.main",
    "pyarrow.dataset",
    "duckdb",
    "faiss",
    "autofaiss",
    "statsmodels.stats.multitest",
    "matplotlib.figure",
    "rich.console",
    "typer",
    "img2dataset.main",
    "pycurl",
)
PATIENCE = 240  # seconds for these imports, on a busy machine
OURS = ("flows", "tasks", "index_build", "xmore")


class Child:
    """A process that the server has forked, as subprocess.Popen would show it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.pid = self._number()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; of a child that a signal has ended, minus the signal's number."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._line, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired("a warm process", timeout or 0)
            self.returncode = self._number()
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _number(self) -> int:
        said = b""
        while not said.endswith(b"\n"):
            said += self._line.recv(1) or b"\n"
        return int(said)


def start(
    place: str,
    entry: str,
    argv: Sequence[object],
    streams: Sequence[int],
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """A process that calls `module:function` with this `sys.argv`, in a process group of its own.

    `place` is the server's socket; `streams` are descriptors of its input, output and errors.
    """
    line = socket.socket(socket.AF_UNIX)
    line.connect(place)
    asked = {
        "entry": entry,
        "argv": [str(argument) for argument in argv],
        "cwd": str(cwd or Path.cwd()),
        "environment": dict(os.environ if environment is None else environment),
    }
    data = json.dumps(asked).encode() + b"\n"
    sent = socket.send_fds(line, [data], list(streams))
    line.sendall(data[sent:])
    return Child(line)


class Warm:
    """Starts processes of our own."""

    def __init__(self, place: str) -> None:
        self.place = place

    def xmore(self, *arguments: object, **how) -> "Talking":
        """The command line; `how` holds `cwd` and `environment`."""
        return Talking(self.place, "flows.cli.main:app", ["xmore", *arguments], how)

    def flow(self, name: str, config: Path, cold: bool = False) -> "Talking":
        """The flow `benchmark` or `reindex` as a plain function; its config is JSON.

        `cold`: img2dataset's processes are not forked, but started as they are outside tests.
        """
        return Talking(self.place, "warm:run_flow", [name, config, "" if cold else self.place], {})

    def code(self, code: str, *arguments: object, **how) -> "Talking":
        """What `python -c` would run."""
        return Talking(self.place, "warm:run_code", [code, *arguments], how)

    def command(self, path: Path) -> None:
        """Write a program that is `xmore` for a shell."""
        module = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; import warm"
        started = f"warm.start({self.place!r}, 'flows.cli.main:app', sys.argv, (0, 1, 2))"
        path.write_text(f"#!{sys.executable}\n{module}\nsys.exit({started}.wait())\n")
        path.chmod(0o755)

    @property
    def downloading(self) -> SimpleNamespace:
        """What stands in for `subprocess` in index_build.download.images."""
        known = {name: getattr(subprocess, name) for name in ("PIPE", "STDOUT", "TimeoutExpired")}
        return SimpleNamespace(Popen=self._download, **known)

    def _download(self, _: object, *, stdout, env, **how) -> Child:
        reading, writing = os.pipe()
        streams = (reading, stdout.fileno(), stdout.fileno())
        child = start(self.place, "warm:run_download", ["download"], streams, None, env)
        os.close(reading)
        child.stdin = os.fdopen(writing, "wb")
        return child


class Talking:
    """A process and what it says."""

    def __init__(self, place: str, entry: str, argv: Sequence[object], how: dict) -> None:
        self._out, self._error = (tempfile.TemporaryFile("w+") for _ in "12")  # noqa: SIM115
        with open(os.devnull) as nothing:
            streams = [stream.fileno() for stream in (nothing, self._out, self._error)]
            self.child = start(place, entry, argv, streams, **how)

    def end(self, timeout: float | None = 300) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        code = self.child.wait(timeout)
        said = []
        for stream in (self._out, self._error):
            stream.seek(0)
            said.append(stream.read())
            stream.close()
        return code, *said


@contextlib.contextmanager
def server(place: str) -> Iterator[None]:
    """A server at this socket for as long as this lasts, or longer where others want it."""
    line = socket.socket(socket.AF_UNIX)
    process, until = None, time.monotonic() + PATIENCE
    while line.connect_ex(place):
        if process is None:
            Path(place).unlink(missing_ok=True)
            process = subprocess.Popen(
                [sys.executable, __file__, place],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"},
            )
        assert process.poll() is None and time.monotonic() < until, "no server for warm processes"
        time.sleep(0.05)
    with line:
        yield


def serve(place: str) -> None:
    """Fork what clients ask for, until the last one who holds a line has gone."""
    gc.disable()
    for name in SLOW:
        importlib.import_module(name)
    gc.freeze()  # or the collector would write to the pages that a child shares with this server
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(64)
    clients: list[socket.socket] = [listener.accept()[0]]
    children: dict[int, socket.socket] = {}
    while clients or children:
        with selectors.DefaultSelector() as selector:
            for line in (listener, *clients):
                selector.register(line, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(0.01 if children else None)]
        for line in ready:
            if line is listener:
                clients.append(listener.accept()[0])
                continue
            clients.remove(line)
            asked, descriptors = _read(line)
            if asked is None:
                line.close()
                continue
            pid = os.fork()
            if pid == 0:
                gc.enable()
                for other in (listener, line, *clients, *children.values()):
                    other.close()
                _become(asked, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            with contextlib.suppress(OSError):  # the child does it, too: one of the two is first
                os.setpgid(pid, pid)
            line.sendall(b"%d\n" % pid)
            children[pid] = line
        _bury(children)
    os.unlink(place)


def _read(line: socket.socket) -> tuple[dict | None, list[int]]:
    data, descriptors, _, _ = socket.recv_fds(line, 1 << 16, 3)
    while data and not data.endswith(b"\n"):
        data += line.recv(1 << 16)
    return (json.loads(data) if data else None), descriptors


def _bury(children: dict[int, socket.socket]) -> None:
    """Tell clients of children that have ended."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with children.pop(pid) as line, contextlib.suppress(OSError):  # its client may have gone
            line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(asked: dict, descriptors: list[int]) -> NoReturn:
    """Be the process that was asked for, to its end."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[0:0] = [folder for folder in folders if folder]
    sys.argv = asked["argv"]
    sys.stdin, sys.stdout, sys.stderr = (open(n, mode) for n, mode in enumerate("rww"))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ours = [name for name in sys.modules if name.partition(".")[0] in OURS]
    assert not ours, f"the server has imported {ours}"
    module, _, function = asked["entry"].partition(":")
    run_to_end(lambda: getattr(importlib.import_module(module), function)())


def run_to_end(call: Callable[[], object]) -> NoReturn:
    """Call, and end this process as Python would."""
    code: object = 0
    try:
        call()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not the interpreter's own end: libraries wait there for threads that no fork has.
    os._exit(code if isinstance(code, int) else 1)


def run_code() -> None:
    """Run some code, which is the first argument."""
    code, sys.argv = sys.argv[0], ["-c", *sys.argv[1:]]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def run_flow() -> None:
    """Run a flow as a plain function: its name and a file with its config as JSON."""
    from flows.benchmark import xmore_benchmark
    from flows.reindex import xmore_reindex
    from index_build.download import images
    from xmore.config.benchmark import BenchmarkConfig
    from xmore.config.memory import ReindexConfig

    flows = {
        "benchmark": (xmore_benchmark, BenchmarkConfig),
        "reindex": (xmore_reindex, ReindexConfig),
    }
    name, config, place = sys.argv
    if place:
        images.subprocess = Warm(place).downloading
    flow, kind = flows[name]
    flow.fn(kind.model_validate_json(Path(config).read_text()))


def run_download() -> None:
    """`python -m index_build.download.process`, whose own processes are forked as well."""
    import img2dataset.distributor
    import img2dataset.logger

    forking = multiprocessing.get_context("fork")
    img2dataset.distributor.get_context = lambda _: forking
    img2dataset.logger.LoggerProcess._Popen = staticmethod(forking.Process._Popen)
    runpy.run_module("index_build.download.process", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder, in which `flows` is not our package
    sys.modules["warm"] = sys.modules["__main__"]
    serve(sys.argv[1])
