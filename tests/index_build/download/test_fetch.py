"""One request, and all that a stranger's server may do to it."""

import http.client
import time

import pytest

from index_build.download.fetch import FetchFailed, fetch_image, may_pass
from xmore.config.memory import DownloadConfig

BOUNDS = DownloadConfig(timeout=1, max_bytes=1_000_000, max_pixels=1_000_000)


def never(headers: http.client.HTTPMessage) -> bool:
    return False


def cause(url: str, bounds: DownloadConfig = BOUNDS, refused=never) -> str:
    with pytest.raises(FetchFailed) as caught:
        fetch_image(url, bounds, refused)
    return caught.value.cause


def test_a_good_image_comes_as_it_is(web):
    whole = fetch_image(web.url("no-ai"), BOUNDS, never)
    assert whole.startswith(b"\xff\xd8") and whole.endswith(b"\xff\xd9")


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


def test_what_may_pass_is_tried_again_and_what_may_not_is_not():
    passing = {"timeout", "connection lost", "connection refused", "HTTP 429", "HTTP 503"}
    lasting = {"HTTP 404", "HTTP 410", "not an image", "no such host", "too many bytes"}
    assert {c for c in passing | lasting if may_pass(c)} == passing
