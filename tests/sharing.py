"""What the workers of one session have in common: folders, locks, ports."""

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest


def session_root(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a session have in common."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextlib.contextmanager
def flocked(path: Path) -> Iterator[None]:
    """One worker at a time; the others wait."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once for all workers of a session; no test may change it."""
    folder = session_root(factory) / "shared" / name
    folder.mkdir(parents=True, exist_ok=True)
    with flocked(folder.with_suffix(".lock")):
        if not folder.with_suffix(".made").exists():
            make(folder)
            folder.with_suffix(".made").touch()
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def unsealed(data: dict) -> dict:
    """A file's content without the checksum, which is not that of what a test changes."""
    return {key: value for key, value in data.items() if key != "checksum"}


def same_rows(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables are equal but for the last bits of floats.

    These depend on the processor's kernels, and with some of them on where in memory a matrix lies.
    """
    if one.column_names != other.column_names or len(one) != len(other):
        return False
    return all(_same(one[name], other[name]) for name in one.column_names)


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    if one.type != other.type:
        return False
    while pa.types.is_list(one.type) or pa.types.is_fixed_size_list(one.type):
        if not pc.list_value_length(one).equals(pc.list_value_length(other)):
            return False
        one, other = (
            pa.chunked_array([chunk.flatten() for chunk in column.chunks], one.type.value_type)
            for column in (one, other)
        )
    if not pa.types.is_floating(one.type):
        return one.equals(other)
    return np.allclose(one.to_numpy(), other.to_numpy(), rtol=1e-4, atol=1e-5, equal_nan=True)


@contextlib.contextmanager
def redirecting(to: str) -> Iterator[str]:
    """The address of a web server that answers every request by leading to another address."""

    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", to)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirect) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
