"""`xmore datasets get`: the only command that downloads a test dataset."""

from __future__ import annotations

import os
import shutil
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from xmore.datasets.card import DatasetCard
from xmore.datasets.sources import TorchvisionSource, WebdatasetSource, shard_count
from xmore.files.addresses import Gate
from xmore.files.errors import DatasetError
from xmore.files.paths import fsync_dir, fsync_file
from xmore.files.progress import track

TIMEOUT = 60  # seconds without a byte


def can_get(card: DatasetCard) -> bool:
    """Return whether the dataset can be downloaded; else it must be obtained by hand."""
    source = card.source
    return isinstance(source, TorchvisionSource) or (
        isinstance(source, WebdatasetSource) and source.url is not None
    )


def get(card: DatasetCard) -> None:
    """Download the dataset into the card's root; complete files are kept.

    Does nothing if `can_get` is false. Raises DatasetError.
    """
    if isinstance(card.source, TorchvisionSource):
        card.root.mkdir(parents=True, exist_ok=True)
        card.source.open(card.root, download=True)
    elif isinstance(card.source, WebdatasetSource) and card.source.url is not None:
        _get_webdataset(card.source.url, card.source.split, card.root)


def _get_webdataset(url: str, split: str, root: Path) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise DatasetError(f"`source.url` must be http or https, got {url!r}.")
    (root / split).mkdir(parents=True, exist_ok=True)
    web = _opener(url)
    _fetch(f"{url}/{split}/nshards.txt", root / split / "nshards.txt", web)
    try:
        _fetch(f"{url}/classnames.txt", root / "classnames.txt", web)
    except DatasetError:  # optional: the card may have the names
        (root / "classnames.txt").unlink(missing_ok=True)
    shards = range(shard_count(root / split))
    for shard in track(shards, f"{root.name} downloading", "shard", len(shards)):
        target = root / split / f"{shard}.tar"
        if not target.exists():
            _fetch(f"{url}/{split}/{shard}.tar", target, web)


def _opener(url: str) -> OpenerDirector:
    """Return what opens addresses of the card's server, and of public ones that it redirects to."""
    gate = Gate(allow_private=False, named=[url])

    class Http(HTTPHandler):
        def http_open(self, request: Request) -> HTTPResponse:
            return self.do_open(partial(_gated, gate, HTTPConnection), request)

    class Https(HTTPSHandler):
        def https_open(self, request: Request) -> HTTPResponse:
            return self.do_open(partial(_gated, gate, HTTPSConnection), request)

    return build_opener(Http, Https)


def _gated(gate: Gate, kind: type[HTTPConnection], host: str, **options: Any) -> HTTPConnection:
    connection = kind(host, **options)
    connection._create_connection = gate.connect  # type: ignore[attr-defined]
    return connection


def _fetch(url: str, target: Path, web: OpenerDirector) -> None:
    """Stream `url` to `target` atomically. Raises DatasetError."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with web.open(url, timeout=TIMEOUT) as response, temporary.open("wb") as out:
            shutil.copyfileobj(response, out, 1 << 20)
            announced = response.headers.get("Content-Length")
            if announced and out.tell() != int(announced):
                raise OSError(f"got {out.tell()} of {announced} bytes")
        fsync_file(temporary)
        os.replace(temporary, target)
        fsync_dir(target.parent)
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors
        raise DatasetError(
            f"{url}: could not be downloaded ({error}). Complete files are kept. "
            "Run it again to resume."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
