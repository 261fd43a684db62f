"""One image from a stranger's server, within bounds of time, bytes and pixels.

img2dataset's own request bounds neither the bytes nor the time of a server that sends a byte now
and then, follows `file:` URLs, and looks at an image's size only after decoding it.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from xmore.config.memory import DownloadConfig
from xmore.images.decode import ImageRejected, check_image

PIECE = 1 << 16
PASSING = frozenset({"timeout", "connection lost", "connection refused", "HTTP 429"})
# One check at a time in a process: a decoded image may take 4 bytes a pixel.
_checking = threading.Lock()


class FetchFailed(Exception):
    """A request that brought no usable image; `cause` is one of a few words, to be counted."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def fetch_image(
    url: str, bounds: DownloadConfig, refused: Callable[[http.client.HTTPMessage], bool]
) -> bytes:
    """The bytes of the image at `url`, whole and decodable; raises FetchFailed.

    `refused` looks at the answer's headers and says whether the server forbids this use.
    """
    data = _get(url, bounds, refused)
    try:
        with _checking:
            check_image(data, bounds.max_pixels)
    except ImageRejected as error:
        raise FetchFailed(error.cause) from error
    return data


def may_pass(cause: str) -> bool:
    """Whether a further try may succeed where one failed by `cause`."""
    return cause in PASSING or cause.startswith("HTTP 5")


def _get(
    url: str, bounds: DownloadConfig, refused: Callable[[http.client.HTTPMessage], bool]
) -> bytes:
    guard = _Guard(bounds.timeout)
    try:
        token = f"; {bounds.user_agent}" if bounds.user_agent else ""
        agent = f"Mozilla/5.0 (compatible; xmore{token}; image-text research)"
        request = urllib.request.Request(url, headers={"User-Agent": agent})
        with guard, guard.opener().open(request, timeout=bounds.timeout) as answer:
            if refused(answer.headers):
                raise FetchFailed("forbidden by the server's X-Robots-Tag")
            return _read(answer, bounds.max_bytes, guard)
    except FetchFailed:
        raise
    except Exception as error:  # urllib and http.client raise many kinds, ValueError among them
        raise FetchFailed("timeout" if guard.expired else _cause(error)) from error


def _read(answer: http.client.HTTPResponse, max_bytes: int, guard: _Guard) -> bytes:
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise FetchFailed("too many bytes")
    data = bytearray()
    while piece := answer.read1(PIECE):
        data += piece
        if len(data) > max_bytes:
            raise FetchFailed("too many bytes")
        if guard.expired:
            raise FetchFailed("timeout")
    if guard.expired:
        raise FetchFailed("timeout")  # its connection was shut: what came is not the whole
    if length.isdigit() and len(data) < int(length):
        raise FetchFailed("connection lost")
    return bytes(data)


def _cause(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return "timeout"
    if isinstance(reason, socket.gaierror):
        return "no such host"
    if isinstance(reason, ssl.SSLError):
        return "TLS failed"
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused"
    if isinstance(reason, OSError | http.client.HTTPException) and not isinstance(
        reason, http.client.InvalidURL
    ):
        return "connection lost"
    return "not a usable URL"


class _Guard:
    """Shuts a request's connections when its time is up, whatever they are waiting for."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.connections: list[http.client.HTTPConnection] = []
        self.timer = threading.Timer(seconds, self._shut)
        self.timer.daemon = True

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.until

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()

    def opener(self) -> urllib.request.OpenerDirector:
        """urllib with http and https only, whose connections are watched."""
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            _watched_http(self._watch),
            _watched_https(self._watch),
        ):
            opener.add_handler(handler)
        return opener

    def _watch(self, connection: http.client.HTTPConnection) -> None:
        self.connections.append(connection)

    def _shut(self) -> None:
        for connection in self.connections:
            with suppress(OSError, AttributeError):  # not connected yet, or closed by now
                connection.sock.shutdown(socket.SHUT_RDWR)


def _watched_http(
    watch: Callable[[http.client.HTTPConnection], None],
) -> urllib.request.HTTPHandler:
    class Handler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(_making(http.client.HTTPConnection, watch), req)

    return Handler()


def _watched_https(
    watch: Callable[[http.client.HTTPConnection], None],
) -> urllib.request.HTTPSHandler:
    class Handler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            make = _making(http.client.HTTPSConnection, watch)
            return self.do_open(make, req, context=_tls())

    return Handler()


def _making(kind: Any, watch: Callable[[http.client.HTTPConnection], None]) -> Any:
    def make(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
        connection = kind(*args, **kwargs)
        watch(connection)
        return connection

    return make


@cache
def _tls() -> ssl.SSLContext:
    # Reading the certificates takes longer than most requests.
    return ssl.create_default_context()
