"""URLs of the web as they are requested."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

PRINTABLE = "".join(map(chr, range(33, 127)))  # of ASCII


def encoded(url: str) -> str:
    """Return a URL as it is requested: spaces and letters other than ASCII are percent-encoded.

    What is encoded already stays. Raises ValueError for what is no URL of the web.
    """
    url = url.strip().lstrip("\ufeff").strip()
    if re.search("[\0-\x1f\x7f]", url):
        raise ValueError(url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:  # curl would guess
        raise ValueError(url)
    before, host, after = url.partition(parts.netloc)
    return before + host.encode("idna").decode() + quote(after, safe=PRINTABLE)
