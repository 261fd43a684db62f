"""The demo's image server: HTTP on this machine, for the images that ship with the project."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from xmore.files.errors import ConfigError
from xmore.files.paths import PROJECT_ROOT

PORT = 8711  # the demo's URL list names it
FOLDER = PROJECT_ROOT / "data" / "demo" / "memory"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log no requests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore clients that hang up: on a busy machine a download may time out."""


@contextmanager
def demo_server() -> Iterator[None]:
    """Serve the demo's images on 127.0.0.1 for as long as the block runs."""
    try:
        server = _Server(("127.0.0.1", PORT), partial(_Quiet, directory=FOLDER))
    except OSError as error:
        if _is_running():  # `xmore up` started it
            yield
            return
        raise ConfigError(
            f"the demo serves its images at 127.0.0.1:{PORT}, which is taken "
            f"({error.strerror}). Stop the process that listens there, then run the demo again."
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _is_running() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/urls.parquet", timeout=5) as response:
            return response.read() == (FOLDER / "urls.parquet").read_bytes()
    except OSError:
        return False
