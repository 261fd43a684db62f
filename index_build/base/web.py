"""URLs of the web as they are requested, and where the requests may go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from xmore.files.addresses import PORTS, Gate

if TYPE_CHECKING:
    import aiohttp

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


def web_options(path: str, allow_private: bool) -> dict[str, Any]:
    """Return fsspec's options for each web server in a path: what it redirects to is looked at."""
    named = [part for part in path.split("::") if urlsplit(part).scheme in PORTS]
    gate = Gate(allow_private, named)

    async def client(**options: Any) -> aiohttp.ClientSession:
        import aiohttp  # slow to import, and most commands request nothing

        connector = aiohttp.TCPConnector(
            socket_factory=lambda entry: gate.open(*entry[:3], entry[4])
        )
        return aiohttp.ClientSession(connector=connector, **options)

    ours = {"get_client": client, "skip_instance_cache": True}
    return {urlsplit(part).scheme: ours for part in named}
