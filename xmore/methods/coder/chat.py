"""Requests to an OpenAI-compatible endpoint; each is sent only once, as answers are kept in a file.

A line of that file is {"model", "prompt", "answer"}, written before the answer is used: a stopped
run resumes without repeating requests. The key is written to no file and no message.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from xmore.files.errors import ConfigError, ServiceError
from xmore.files.paths import naming

VARIABLES = ("XMORE_LLM_URL", "XMORE_LLM_MODEL", "XMORE_LLM_KEY")
MAX_BYTES = 1_000_000  # per response
TRIES = 4  # attempts per request
LONGEST_WAIT = 60.0  # seconds between attempts, whatever the server requests
RETRYABLE = {408, 409, 425, 429, 500, 502, 503, 504}  # HTTP statuses


class _RetryableError(Exception):
    """A retryable failure; `wait` is the server's Retry-After, in seconds."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Endpoint:
    """The address, model and key of an endpoint."""

    url: str  # up to /v1
    model: str
    key: str = field(default="", repr=False)
    seconds: float = 120  # limit of each wait, and of the response after its headers


def endpoint_from(environment: Mapping[str, str]) -> Endpoint:
    """Read the endpoint from environment variables. Raises ConfigError if one is wrong."""
    url, model, key = (environment.get(name, "").strip() for name in VARIABLES)
    if not url or not model:
        missing = VARIABLES[0] if not url else VARIABLES[1]
        raise ConfigError(
            f"{missing} is not set. Texts other than synonyms come from an OpenAI-compatible "
            f"endpoint. Set {VARIABLES[0]} (as in https://host/v1), {VARIABLES[1]} and, if it "
            f"needs a key, {VARIABLES[2]}."
        )
    if not re.fullmatch(r"https?://[^\s/?#\[\]]+[^\s?#]*", url, re.I):
        raise ConfigError(
            f"{VARIABLES[0]} must be an http or https address, as in https://host/v1."
        )
    if not (model.isprintable() and len(model) <= 200):
        raise ConfigError(f"{VARIABLES[1]} must be a name of at most 200 characters.")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{VARIABLES[2]} must be printable ASCII.")
    return Endpoint(url.rstrip("/"), model, key)


class Chat:
    """Sends prompts to an endpoint, and keeps every answer in the file `kept`."""

    def __init__(
        self, endpoint: Endpoint, kept: Path, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.endpoint, self.kept, self.sleep = endpoint, kept, sleep
        self.asked = 0  # number of requests sent
        self.answers = _read(kept)

    def ask(self, prompt: str) -> str:
        """Return the answer's text. Raises ServiceError if TRIES attempts fail."""
        known = self.answers.get((self.endpoint.model, prompt))
        if known is not None:
            return known
        answer = self._fetch(prompt)
        self._keep(prompt, answer)
        return answer

    def _fetch(self, prompt: str) -> str:
        for number in range(1, TRIES + 1):
            try:
                self.asked += 1
                return self._attempt(prompt)
            except _RetryableError as error:
                if number == TRIES:
                    raise self._failed(f"{error}, {TRIES} times") from error
                self.sleep(min(LONGEST_WAIT, 2.0**number if error.wait is None else error.wait))
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, prompt: str) -> str:
        headers = {"Accept-Encoding": "identity"}  # so that MAX_BYTES bounds the decoded text too
        if self.endpoint.key:
            headers["Authorization"] = f"Bearer {self.endpoint.key}"
        body = {"model": self.endpoint.model, "messages": [{"role": "user", "content": prompt}]}
        ends = time.monotonic() + self.endpoint.seconds
        url = f"{self.endpoint.url}/chat/completions"
        try:
            with (
                # Redirects are not followed: the key is sent only to the configured host.
                httpx.Client(timeout=self.endpoint.seconds, follow_redirects=False) as client,
                client.stream("POST", url, headers=headers, json=body) as response,
            ):
                data = self._body(response, ends)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _RetryableError(f"no response ({type(error).__name__}: {error})") from error
        text = data.decode("utf-8", "replace")
        if self.endpoint.key:  # some servers repeat it in an error
            text = text.replace(self.endpoint.key, "***")
        if response.status_code in RETRYABLE:
            wait = _seconds(response.headers.get("Retry-After"))
            raise _RetryableError(f"status {response.status_code}", wait)
        if response.status_code != 200:
            raise self._failed(f"status {response.status_code}: {text[:200]}")
        return _content(text)

    def _body(self, response: httpx.Response, ends: float) -> bytes:
        data = bytearray()
        for piece in response.iter_raw():
            data += piece
            if len(data) > MAX_BYTES:
                raise self._failed(f"a response of more than {MAX_BYTES:,} bytes")
            if time.monotonic() > ends:  # also if single bytes arrive now and then
                raise _RetryableError(f"no complete response in {self.endpoint.seconds:g} seconds")
        return bytes(data)

    def _failed(self, what: str) -> ServiceError:
        host = urlsplit(self.endpoint.url).hostname
        return ServiceError(
            f"{host}: {what}. Answers so far are kept in {self.kept}. "
            "Run the same command again to resume."
        )

    def _keep(self, prompt: str, answer: str) -> None:
        row = {"model": self.endpoint.model, "prompt": prompt, "answer": answer}
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.kept), self.kept.open("ab") as stream:
            stream.write(json.dumps(row).encode() + b"\n")  # ASCII: half a surrogate has no UTF-8
            stream.flush()
            os.fsync(stream.fileno())
        self.answers[self.endpoint.model, prompt] = answer


def _read(kept: Path) -> dict[tuple[str, str], str]:
    """Read the answers in a file; an incomplete last line (a killed write) is removed.

    Raises ConfigError.
    """
    if not kept.exists():
        return {}
    data = kept.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    if len(complete) < len(data):
        with kept.open("rb+") as stream:
            stream.truncate(len(complete))
    answers = {}
    for number, line in enumerate(complete.splitlines(), 1):
        try:
            row = json.loads(line)
            answers[row["model"], row["prompt"]] = str(row["answer"])
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ConfigError(
                f"{kept}, line {number}: is not a kept answer. Remove the line, or remove the file "
                "to repeat all requests."
            ) from error
    return answers


def _content(text: str) -> str:
    """Return the text of a chat completion."""
    try:
        content: Any = json.loads(text)["choices"][0]["message"]["content"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise _RetryableError("a response that is not a chat completion") from error
    if not isinstance(content, str):
        raise _RetryableError("a response without text")
    return content


def _seconds(header: str | None) -> float | None:
    """Parse `Retry-After` in seconds; a date or anything else is None."""
    return float(header) if header and header.isdecimal() and len(header) < 9 else None
