"""One image from a stranger's server, within bounds of time, bytes and pixels.

img2dataset's own request bounds neither the bytes nor the time of a server that sends a byte now
and then, follows `file:` URLs, and looks at an image's size only after decoding it.
"""

from __future__ import annotations

import errno
import math
import socket
import ssl
import threading
from collections.abc import Callable
from functools import partial
from http.client import HTTPMessage
from typing import Any

import certifi
import pycurl

from index_build.base.web import encoded
from xmore.config.memory import DownloadConfig
from xmore.files.addresses import PRIVATE, Gate
from xmore.images.decode import ImageRejected, check_image

RETRYABLE = frozenset({"timeout", "connection lost", "connection refused", "HTTP 429"})
# What curl's errors are called here, some of them with the system's behind it; any other is
# "connection lost". The ANSWERED come after a status, and it says more.
CAUSES = {
    pycurl.E_URL_MALFORMAT: "not a usable URL",
    pycurl.E_COULDNT_RESOLVE_HOST: "no such host",
    pycurl.E_COULDNT_RESOLVE_PROXY: "no such host",
    (pycurl.E_COULDNT_CONNECT, errno.ECONNREFUSED): "connection refused",
    (pycurl.E_SSL_CONNECT_ERROR, errno.ECONNRESET): "connection lost",
    pycurl.E_SSL_CONNECT_ERROR: "TLS failed",
    pycurl.E_PEER_FAILED_VERIFICATION: "TLS failed",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_FILESIZE_EXCEEDED: "too many bytes",
}
ANSWERED = (
    pycurl.E_HTTP_RETURNED_ERROR,
    pycurl.E_TOO_MANY_REDIRECTS,
    pycurl.E_UNSUPPORTED_PROTOCOL,  # where a redirect leads
)
# One check at a time in a process: a decoded image may take 4 bytes a pixel.
_checking = threading.Lock()


class FetchFailed(Exception):
    """A request that brought no usable image; `cause` is one of a few words, to be counted."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def fetch_image(url: str, bounds: DownloadConfig, refused: Callable[[HTTPMessage], bool]) -> bytes:
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


def is_retryable(cause: str) -> bool:
    """Whether a further try may succeed where one failed by `cause`."""
    return cause in RETRYABLE or cause.startswith("HTTP 5")


def _get(url: str, bounds: DownloadConfig, refused: Callable[[HTTPMessage], bool]) -> bytes:
    answer, gate = _Answer(refused), Gate(bounds.allow_private)
    handle = _of_thread.handle
    try:
        for option, value in _options(encoded(url), bounds, answer, gate).items():
            handle.setopt(option, value)
        handle.perform()
        status = handle.getinfo(pycurl.RESPONSE_CODE)
    except ValueError as error:
        raise FetchFailed("not a usable URL") from error
    except pycurl.error as error:
        if answer.forbidden:
            raise FetchFailed("forbidden by the server's X-Robots-Tag") from error
        if gate.refused:
            raise FetchFailed(PRIVATE) from error
        raise FetchFailed(_cause(error.args[0], handle)) from error
    finally:
        handle.reset()
    if not 200 <= status < 300:  # such as a redirect that does not say where to
        raise FetchFailed(f"HTTP {status}")
    return bytes(answer.body)


def _options(url: str, bounds: DownloadConfig, answer: _Answer, gate: Gate) -> dict[int, Any]:
    """What curl is told."""
    token = f"; {bounds.user_agent}" if bounds.user_agent else ""
    agent = f"Mozilla/5.0 (compatible; xmore{token}; image-text research)"
    certificates = ssl.get_default_verify_paths()
    options = {
        pycurl.URL: url,
        pycurl.HTTPHEADER: ["Accept-Encoding: identity"],
        pycurl.USERAGENT: agent.encode(),
        pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,  # 2 saves nothing on one request
        pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,  # a redirect's too
        pycurl.FOLLOWLOCATION: True,
        pycurl.MAXREDIRS: 10,
        pycurl.FAILONERROR: True,
        pycurl.TIMEOUT_MS: math.ceil(bounds.timeout * 1000),  # of all, the host's look-up included
        pycurl.MAXFILESIZE_LARGE: bounds.max_bytes,
        pycurl.NOSIGNAL: True,  # there are other threads
        pycurl.FORBID_REUSE: True,  # each request connects, so the gate sees its address
        pycurl.OPENSOCKETFUNCTION: partial(_open_socket, gate),
        pycurl.HEADERFUNCTION: answer.take_header,
        pycurl.WRITEFUNCTION: answer.body.extend,
        pycurl.CAINFO: certificates.cafile or certifi.where(),
    }
    if certificates.capath and not certificates.cafile:
        options[pycurl.CAPATH] = certificates.capath
    return options


def _open_socket(gate: Gate, _purpose: int, address: Any) -> socket.socket | int:
    try:
        return gate.open(address.family, address.socktype, address.protocol, address.addr)
    except OSError:
        return pycurl.SOCKET_BAD


def _cause(code: int, handle: pycurl.Curl) -> str:
    status = handle.getinfo(pycurl.RESPONSE_CODE)
    if status and code in ANSWERED:
        return f"HTTP {status}"
    told = (code, handle.getinfo(pycurl.OS_ERRNO))
    return CAUSES.get(told) or CAUSES.get(code, "connection lost")


class _Answer:
    """An answer as it comes in: its headers, looked at before any of the body, and the body."""

    def __init__(self, refused: Callable[[HTTPMessage], bool]) -> None:
        self.refused = refused
        self.forbidden = False
        self.status = ""
        self.headers = HTTPMessage()
        self.body = bytearray()

    def take_header(self, line: bytes) -> int | None:
        text = line.decode("iso-8859-1").strip()
        name, colon, value = text.partition(":")
        if text.startswith("HTTP/"):  # the answer before this one was a redirect
            self.status, self.headers = text.partition(" ")[2], HTTPMessage()
        elif colon:
            self.headers[name] = value.strip()
        elif self.status.startswith("2"):  # an empty line: these are all its headers
            self.forbidden = self.refused(self.headers)
        return -1 if self.forbidden else None  # -1 ends the request


class _OfThread(threading.local):
    """A handle for each thread; it remembers the certificates, which take long to read."""

    def __init__(self) -> None:
        self.handle = pycurl.Curl()


_of_thread = _OfThread()
