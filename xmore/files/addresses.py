"""Which addresses a stranger's URL, or a redirect of it, may lead to.

A list of URLs is written by strangers. Without a rule, one of them can make this machine ask what
only it can reach: a router's page, a cloud's metadata service, a database without a password.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

PRIVATE = "private address"
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in the last 32 bits (RFC 6052)
UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that has been given to the internet
# What older Pythons take for addresses of the internet (RFC 6890, 7526, 9637).
SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
PROXIES = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")  # curl's variables
PORTS = {"http": 80, "https": 443}
PROXY_PORTS = {"https": 443}  # curl's; of others 1080

Place = tuple[str, int]
"""An IP address and a port."""


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the internet's, whatever way it is written.

    Loopback, private, link-local, multicast, unspecified and reserved addresses are not, nor are
    IPv6 addresses that contain such an IPv4 address (mapped, 6to4, Teredo, NAT64).
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped or found in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        inner = [found.sixtofour, *(found.teredo or ())]
        if found not in UNICAST or not all(a is None or is_public(str(a)) for a in inner):
            return False
    special = any(found in network for network in SPECIAL)
    return found.is_global and not found.is_multicast and not special


class Gate:
    """Opens sockets, and refuses those to other addresses than the internet's.

    It is asked after a host has been looked up, before each connect, a redirect's too. So a name
    that leads to another address the second time is of no use.
    """

    def __init__(self, allow_private: bool, named: Iterable[str] = ()) -> None:
        """`named` are addresses that the user has written: where they lead is allowed."""
        self.allow_private = allow_private
        self.named = frozenset(place for url in named for place in _places(url, PORTS))
        self.refused = False

    def open(self, family: int, kind: int, protocol: int, place: tuple[Any, ...]) -> socket.socket:
        """Return a socket for a resolved address. Raises OSError: nothing is sent to it."""
        host, port = place[:2]
        allowed = self.allow_private or is_public(host)
        if not (allowed or (host, port) in self.named or (host, port) in _proxies()):
            self.refused = True
            raise PermissionError(errno.EACCES, PRIVATE, host)
        return socket.socket(family, kind, protocol)

    def connect(self, place: Place, timeout: float | None, *_: Any) -> socket.socket:
        """Connect to a host, as socket.create_connection does. Raises OSError."""
        host, port = place
        problem = OSError(f"{host}: no such host")
        for family, kind, protocol, _name, found in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            try:
                opened = self.open(family, kind, protocol, found)
            except OSError as error:
                problem = error
                continue
            try:
                opened.settimeout(timeout)
                opened.connect(found)
                return opened
            except OSError as error:
                opened.close()
                problem = error
        raise problem


@cache
def _proxies() -> frozenset[Place]:
    """Return the places of the environment's proxies, which apply such rules themselves."""
    values = [value for variable in PROXIES if (value := os.environ.get(variable))]
    urls = [value if "://" in value else f"http://{value}" for value in values]
    return frozenset(place for url in urls for place in _places(url, PROXY_PORTS, 1080))


def _places(url: str, ports: dict[str, int], otherwise: int = 0) -> set[Place]:
    """Return where a URL's host leads now; nowhere if it cannot be found, as is told when used."""
    try:
        parts = urlsplit(url)
        port = parts.port or ports.get(parts.scheme, otherwise)
        found = socket.getaddrinfo(parts.hostname, None) if parts.hostname else []
        return {(str(entry[4][0]), port) for entry in found}
    except (OSError, ValueError):
        return set()
