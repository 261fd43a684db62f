"""One request, and all that a stranger's server may do to it."""

import datetime
import http.client
import os
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from index_build.download.fetch import FetchFailed, encoded, fetch_image, is_retryable
from index_build.download.job import VARIABLE, Job
from xmore.config.memory import DownloadConfig
from xmore.files import addresses
from xmore.files.addresses import Gate

BOUNDS = DownloadConfig(timeout=1, max_bytes=1_000_000, max_pixels=1_000_000, allow_private=True)
STRANGERS = BOUNDS.model_copy(update={"allow_private": False})


def never(headers: http.client.HTTPMessage) -> bool:
    return False


def cause(url: str, bounds: DownloadConfig = BOUNDS, refused=never) -> str:
    with pytest.raises(FetchFailed) as caught:
        fetch_image(url, bounds, refused)
    return caught.value.cause


class Raw(socketserver.StreamRequestHandler):
    """Answers with the server's bytes, over TLS where it has a certificate; then hangs up."""

    def handle(self) -> None:
        if self.server.tls:
            self.request.do_handshake()
        while self.rfile.readline().strip():
            pass
        self.wfile.write(self.server.answer)
        self.wfile.flush()
        time.sleep(self.server.stays)


class KeptOpen(Raw):
    def handle(self) -> None:
        super().handle()
        super().handle()


class RawServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, answer, stays=0.0, certificate=None, handler=Raw) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.answer, self.stays, self.tls = answer, stays, certificate is not None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def handle_error(self, *_) -> None:
        """Clients that hang up are wanted here."""


@pytest.fixture
def raw():
    """Starts servers that answer each request with the same bytes; says their ports."""
    servers = []

    def start(answer, **how) -> int:
        servers.append(RawServer(answer, **how))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return servers[-1].server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_good_image_comes_as_it_is(web):
    whole = fetch_image(web.url("no-ai"), BOUNDS, never)
    assert whole.startswith(b"\xff\xd8") and whole.endswith(b"\xff\xd9")


def test_a_url_may_be_spelt_otherwise(web):
    url = web.url("no-ai")
    other = url.replace("http", "HTTP").replace("127.0.0.1", "loc\u00aalhost")
    assert fetch_image(f" {other}#top\n", BOUNDS, never) == fetch_image(url, BOUNDS, never)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("images/nowhere.jpg", "HTTP 404"),
        ("status/410", "HTTP 410"),
        ("status/503", "HTTP 503"),
        ("bad/page.jpg", "not an image"),
        ("bad/truncated.jpg", "truncated or damaged"),
        ("bad/bomb.png", "too many pixels"),
        ("big/announced", "too many bytes"),
        ("big/unannounced", "too many bytes"),
        ("short", "connection lost"),
        ("empty", "empty file"),
        ("to-file", "HTTP 302"),
        ("loop", "HTTP 302"),
        ("hang", "timeout"),
        ("drip/body", "timeout"),
        ("drip/headers", "timeout"),
    ],
)
def test_a_bad_answer_is_named_in_time(web, path, expected):
    begun = time.monotonic()
    assert cause(web.url(path)) == expected
    assert time.monotonic() - begun < 10  # the bound is 1 s; the servers would take 30


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///etc/hostname", "not a usable URL"),
        ("ftp://127.0.0.1/x.jpg", "not a usable URL"),
        ("no url at all", "not a usable URL"),
        ("127.0.0.1:1/x.jpg", "not a usable URL"),
        ("http:///127.0.0.1:1/x.jpg", "not a usable URL"),
        ("//127.0.0.1:1/x.jpg", "not a usable URL"),
        ("http://127.0.0.1:1/\u00fc.jpg", "connection refused"),
        ("HTTP://127.0.0.1:1/a b.jpg", "connection refused"),
        ("http://a..invalid/x.jpg", "not a usable URL"),
        ("http://", "not a usable URL"),
        ("http://[::1", "not a usable URL"),
        ("http://127.0.0.1:1/x.jpg", "connection refused"),
        ("http://127.0.0.1:80\r\nX: y/x.jpg", "not a usable URL"),
        ("http://nowhere.invalid/x.jpg", "no such host"),
    ],
)
def test_a_bad_url_is_named(url, expected):
    assert cause(url) == expected


def test_a_server_may_forbid_the_use(web):
    def refused(headers):
        return headers["X-Robots-Tag"] == "noai"

    assert "X-Robots-Tag" in cause(web.url("no-ai"), refused=refused)


def test_the_headers_decide_before_the_body_comes(raw):
    lines = [
        b"X-Robots-Tag: other: noai",
        b"x-robots-tag:noimageai",
        b"Content-Length: 9",
        b"",
        b"",
    ]
    url = f"http://127.0.0.1:{raw(crlf(b'HTTP/1.1 200 OK', *lines), stays=30)}/"
    seen = []

    def refused(headers):
        seen.append((type(headers), headers.get_all("X-Robots-Tag")))
        return True

    assert "X-Robots-Tag" in cause(url, refused=refused)
    assert seen == [(http.client.HTTPMessage, ["other: noai", "noimageai"])]
    assert cause(url) == "timeout"  # else it would have waited for the body


def test_only_the_last_answer_s_headers_count(web, raw):
    redirect = [b"X-Robots-Tag: noai", b"Location: " + web.url("no-ai").encode(), b"", b""]
    port = raw(crlf(b"HTTP/1.1 302 Found", *redirect))
    seen = []
    fetch_image(f"http://127.0.0.1:{port}/", BOUNDS, lambda h: seen.append(h.items()))
    assert len(seen) == 1 and "Location" not in dict(seen[0])


def test_an_error_s_body_is_not_waited_for(raw):
    port = raw(crlf(b"HTTP/1.1 404 Not Found", b"Content-Length: 9", b"", b""), stays=30)
    assert cause(f"http://127.0.0.1:{port}/") == "HTTP 404"


def test_a_redirect_to_nowhere_is_no_image(web, raw):
    image = fetch_image(web.url("no-ai"), BOUNDS, never)
    port = raw(crlf(b"HTTP/1.1 302 Found", b"Content-Length: %d" % len(image), b"", image))
    assert cause(f"http://127.0.0.1:{port}/") == "HTTP 302"


def test_a_loop_ends_soon(web):
    assert cause(web.url("loop")) == "HTTP 302"
    assert web.asked == {"/loop": 11}


def test_what_a_server_is_told(raw):
    told = []

    class Listens(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline().strip():
                told.append(line.decode())

    port = raw(b"", handler=Listens)
    cause(f"http://127.0.0.1:{port}/x.jpg", BOUNDS.model_copy(update={"user_agent": "me"}))
    assert told == [
        "GET /x.jpg HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: Mozilla/5.0 (compatible; xmore; me; image-text research)",
        "Accept: */*",
        "Accept-Encoding: identity",
    ]


def crlf(*lines: bytes) -> bytes:
    return b"\r\n".join(lines)


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1:1/x.jpg",
        "gopher://127.0.0.1:1/",
        "ws://127.0.0.1:1/",
    ],
)
def test_a_redirect_stays_with_http(raw, location):
    port = raw(crlf(b"HTTP/1.1 301 Moved", b"Location: " + location.encode(), b"", b""))
    assert cause(f"http://127.0.0.1:{port}/") == "HTTP 301"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of localhost's own, with its key: a file that vouches only for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = serialization.Encoding.PEM
    secret = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *secret))
    return path


def test_a_certificate_must_be_vouched_for(web, raw, certificate, monkeypatch):
    image = fetch_image(web.url("no-ai"), BOUNDS, never)
    length = b"Content-Length: %d" % len(image)
    port = raw(crlf(b"HTTP/1.1 200 OK", length, b"", image), certificate=certificate)
    assert cause(f"https://localhost:{port}/") == "TLS failed"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch_image(f"https://localhost:{port}/", BOUNDS, never) == image
    assert cause(f"https://127.0.0.1:{port}/") == "TLS failed"  # not the name it is made out to


def test_a_server_without_tls(raw):
    class Plain(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    assert cause(f"https://127.0.0.1:{raw(b'', handler=Plain)}/") == "TLS failed"


def test_a_handshake_that_is_cut_off_may_pass(raw):
    class Reset(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)  # what is left unread makes it a reset
            linger = struct.pack("ii", 1, 0)
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.server.close_request(self.request)

    assert cause(f"https://127.0.0.1:{raw(b'', handler=Reset)}/") == "connection lost"


def test_each_address_is_seen_before_it_is_connected_to(web, raw, monkeypatch):
    target = web.url("no-ai").replace("127.0.0.1", "localhost")
    lines = [b"Location: " + target.encode(), b"Content-Length: 0", b"", b""]
    port = raw(crlf(b"HTTP/1.1 302 Found", *lines), handler=KeptOpen)
    opened, seen = Gate.open, []

    def watch(gate, family, kind, protocol, place):
        seen.append((place[:2], web.asked.total()))
        return opened(gate, family, kind, protocol, place)

    monkeypatch.setattr(Gate, "open", watch)
    for again in (0, 1):  # no connection is kept from one request to the next
        seen.clear()
        fetch_image(f"http://127.0.0.1:{port}/", BOUNDS, never)
        assert seen[0] == (("127.0.0.1", port), again)
        assert seen[-1] == (("127.0.0.1", web.server_port), again)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]",
     "0.0.0.0", "[::]", "10.0.0.1", "169.254.169.254", "192.168.1.1", "172.16.0.1", "100.64.0.1",
     "224.0.0.1", "[fe80::1]", "[fd00::1]", "[ff02::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
     "017700000001", "0177.0.0.1", "127\u30020\u30020\u30021", "\uff11\uff12\uff17.1",
     "\u2460\u2461\u2466.1", "0", "public.example@127.0.0.1", "x:y@[::1]", "127.0.0.1.",
     "localhost.", "0.0.0.1", "192.0.0.8", "198.18.0.1", "240.0.0.1", "255.255.255.255",
     "[64:ff9b:1::7f00:1]", "[fec0::1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]"],
)  # fmt: skip
def test_an_address_of_no_public_network_is_not_connected_to(web, host):
    url = web.url("no-ai").replace("127.0.0.1", host)
    assert cause(url, STRANGERS) == "private address"
    assert not web.asked and not is_retryable("private address")


def test_a_redirect_does_not_lead_there_either(web, raw, monkeypatch):
    lines = [b"Location: " + web.url("no-ai").encode(), b"Content-Length: 0", b"", b""]
    port = raw(crlf(b"HTTP/1.1 302 Found", *lines))
    public, allowed = addresses.is_public, iter([True])  # the first server stands for a public one
    monkeypatch.setattr(addresses, "is_public", lambda host: next(allowed, False) or public(host))
    assert cause(f"http://127.0.0.1:{port}/", STRANGERS) == "private address"
    assert not web.asked


def test_a_proxy_may_be_anywhere(web, raw, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url("").rstrip("/"))
    addresses._proxies.cache_clear()
    try:
        assert cause("http://example.com/no-ai", STRANGERS) == "HTTP 404"  # its answer
        assert cause("http://127.0.0.2/", STRANGERS) == "HTTP 404"  # its rule, not ours
        monkeypatch.setenv("no_proxy", "127.0.0.2")
        assert cause("http://127.0.0.2/", STRANGERS) == "private address"
        monkeypatch.setenv("no_proxy", "*")  # on the proxy's machine, another port is no proxy
        assert cause(f"http://127.0.0.1:{raw(b'')}/", STRANGERS) == "private address"
    finally:
        addresses._proxies.cache_clear()


SLOW_NAMES = """
#include <netdb.h>
#include <unistd.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) { sleep(600); return EAI_NONAME; }
"""
ASK_FOR = """
import os, sys
from index_build.download.fetch import FetchFailed, fetch_image
from xmore.config.memory import DownloadConfig
try:
    bounds = DownloadConfig(timeout=0.5, allow_private=True)
    fetch_image(sys.argv[1], bounds, lambda headers: False)
except FetchFailed as error:
    print(error.cause, flush=True)
    os._exit(0)  # leaves the thread that waits for the name
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_the_look_up_of_a_name_counts(tmp_path):
    source, library = tmp_path / "slow.c", tmp_path / "slow.so"
    source.write_text(SLOW_NAMES)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", ASK_FOR, "http://slow.invalid/x.jpg"],
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=120,  # the name would take 600 s
    )
    assert done.stdout == "timeout\n"


def test_a_proxy_of_the_environment_is_asked(web, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url(""))
    assert cause("http://nowhere.invalid/x.jpg") == "HTTP 404"
    monkeypatch.setenv("no_proxy", "invalid")
    assert cause("http://nowhere.invalid/x.jpg") == "no such host"
    assert web.asked == {"http://nowhere.invalid/x.jpg": 1}


ASK_IN_A_WORKER = """
import sys
from unittest.mock import MagicMock
# It takes seconds to import, and has no part in this.
sys.modules["img2dataset"] = sys.modules["img2dataset.downloader"] = MagicMock()
from index_build.download.worker import fetch_row
fetch_row((0, sys.argv[1]), 1, 0, None, None)
"""


def test_a_worker_knows_the_proxy_s_other_spelling(web, tmp_path):
    job = Job(rows=tmp_path, target=tmp_path, shard_rows=1, bounds=BOUNDS)
    environment = os.environ | {"HTTP_PROXY": web.url(""), VARIABLE: job.model_dump_json()}
    ask = [sys.executable, "-c", ASK_IN_A_WORKER, "http://nowhere.invalid/x.jpg"]
    subprocess.run(ask, env=environment, check=True)
    assert web.asked == {"http://nowhere.invalid/x.jpg": 1}


FAIL_IN_A_WORKER = """
from index_build.download import worker
assert fetch_row((0, "http://127.0.0.1:1/x.jpg"), 1, 0, None, None)[1:] == (None, sys.argv[1])
def fetch(*_):
    raise MemoryError
worker.fetch_image = fetch
assert fetch_row((0, "x"), 1, 0, None, None) == (0, None, "MemoryError")
"""


def test_a_worker_never_raises_as_img2dataset_would_wait_for_ever(tmp_path):
    job = Job(rows=tmp_path, target=tmp_path / "images", shard_rows=1, bounds=BOUNDS)
    job.tally.mkdir()  # a full disk is an OSError, too
    environment = os.environ | {VARIABLE: job.model_dump_json()}
    code = ASK_IN_A_WORKER.replace("sys.argv[1]", "'x'") + FAIL_IN_A_WORKER
    words = [sys.executable, "-c", code, "connection refused"]
    subprocess.run(words, env=environment, check=True)


def test_what_may_pass_is_tried_again_and_what_may_not_is_not():
    passing = {"timeout", "connection lost", "connection refused", "HTTP 429", "HTTP 503"}
    lasting = {"HTTP 404", "HTTP 410", "not an image", "no such host", "too many bytes"}
    assert {c for c in passing | lasting if is_retryable(c)} == passing


@pytest.mark.parametrize(
    ("listed", "asked"),
    [
        ("a b.jpg", "a%20b.jpg"),
        ("\u00fc/\u5b57.jpg?q=\u00e4 1", "%C3%BC/%E5%AD%97.jpg?q=%C3%A4%201"),
        ("a%20b.jpg", "a%20b.jpg"),
        ("100%.jpg", "100%.jpg"),
        ("[x]'{y}\"|^`\\<z>.jpg", "[x]'{y}\"|^`\\<z>.jpg"),
        ("x.jpg#top", "x.jpg"),
    ],
)
def test_what_is_asked_for(web, listed, asked):
    cause("\ufeff " + web.url(listed) + " ")
    assert dict(web.asked) == {f"/{asked}": 1}


def test_a_host_in_other_letters():
    assert encoded("http://b\u00fccher.example/\u00fc") == "http://xn--bcher-kva.example/%C3%BC"
