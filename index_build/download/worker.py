"""The code of img2dataset's workers: its downloader, with bounded requests.

img2dataset sends its downloader to spawned processes, or to Spark's Python workers, as a pickle
that names its class. Our class is defined here: to unpickle it, a worker must import this module,
which changes img2dataset. The job comes in the environment variable XMORE_DOWNLOAD.
"""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from functools import cache
from http.client import HTTPMessage

import img2dataset.downloader

from index_build.download.fetch import FetchFailed, fetch_image, is_retryable
from index_build.download.job import TAKEN_DOWN, VARIABLE, Job


class BoundedDownloader(img2dataset.downloader.Downloader):
    """img2dataset's own downloader; importing this module makes it call `fetch_row`."""


def fetch_row(
    row: tuple[int, str],
    timeout: float,
    retries: int,
    user_agent_token: str | None,
    disallowed_header_directives: set[str] | None,
) -> tuple[int, io.BytesIO | None, str | None]:
    """Replace img2dataset's `download_image_with_retry`: same interface, bounded requests."""

    def refused(headers: HTTPMessage) -> bool:
        return bool(disallowed_header_directives) and img2dataset.downloader.is_disallowed(
            headers, user_agent_token, disallowed_header_directives
        )

    key, url = row
    with suppress(OSError):  # for show only
        _tally().write(b".")
    cause = ""
    for _ in range(retries + 1):
        try:
            data = fetch_image(url, JOB.bounds, refused)
            digest = hashlib.sha256(data).hexdigest()
            if digest in TAKEN:
                return key, None, f"{TAKEN_DOWN} {digest}"
            return key, io.BytesIO(data), None
        except FetchFailed as error:
            cause = error.cause
        except Exception as error:  # raised, it would make img2dataset wait for ever
            cause = type(error).__name__
        if not is_retryable(cause):
            break
    return key, None, cause


@cache
def _tally() -> io.FileIO:
    return JOB.tally.open("ab", buffering=0)


JOB = Job.model_validate_json(os.environ[VARIABLE])
TAKEN = frozenset(JOB.taken)
img2dataset.downloader.download_image_with_retry = fetch_row
if proxy := os.environ.get("HTTP_PROXY"):  # curl knows this one in lower case only
    os.environ.setdefault("http_proxy", proxy)
