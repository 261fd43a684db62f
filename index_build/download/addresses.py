"""Which addresses a stranger's URL, or a redirect of it, may lead to.

A list of URLs is written by strangers. Without a rule, one of them can make this machine ask what
only it can reach: a router's page, a cloud's metadata service, a database without a password.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pycurl

NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in the last 32 bits (RFC 6052)
PROXIES = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")  # curl's variables


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the internet's, whatever way it is written.

    Loopback, private, link-local, multicast, unspecified and reserved addresses are not, nor are
    IPv6 addresses that contain such an IPv4 address (mapped, 6to4, Teredo, NAT64).
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner: list[ipaddress.IPv4Address | None] = []
    if isinstance(found, ipaddress.IPv6Address):
        inner += [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        if found in NAT64:
            inner.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
        if found.ipv4_mapped:
            return is_public(str(found.ipv4_mapped))
    insides = all(address is None or is_public(str(address)) for address in inner)
    return insides and found.is_global and not found.is_multicast


class Gate:
    """Opens a request's sockets, and refuses those to other addresses than the internet's.

    curl asks it after it has looked up the host, before each connect, a redirect's too. So a name
    that leads to another address the second time is of no use.
    """

    def __init__(self, allow_private: bool) -> None:
        self.allow_private = allow_private
        self.refused = False

    def open_socket(self, purpose: int, address: Any) -> socket.socket | int:
        """Return a socket for a resolved address, or SOCKET_BAD: nothing is sent to it."""
        host = address.addr[0]
        if not (self.allow_private or is_public(host) or host in _proxies()):
            self.refused = True
            return pycurl.SOCKET_BAD
        try:
            return socket.socket(address.family, address.socktype, address.protocol)
        except OSError:
            return pycurl.SOCKET_BAD


@cache
def _proxies() -> frozenset[str]:
    """Return the addresses of the environment's proxies, which apply such rules themselves."""
    found = set()
    for variable in PROXIES:
        value = os.environ.get(variable, "")
        try:
            host = urlsplit(value if "://" in value else f"http://{value}").hostname
            found |= (
                {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)} if host else set()
            )
        except (OSError, ValueError):
            continue  # curl names it when it is used
    return frozenset(found)
