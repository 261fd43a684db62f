"""Addresses that a stranger may not lead us to, however they are written, and when they change."""

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmore.files import addresses
from xmore.files.addresses import Gate, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True),
     ("64:ff9b::808:808", True),
     ("::ffff:10.0.0.1", False), ("64:ff9b::a00:1", False), ("fe80::1%eth0", False),
     ("2002:a00:1::1", False), ("255.255.255.255", False), ("240.0.0.1", False), ("x", False),
     ("0.0.0.1", False), ("100.64.0.1", False), ("192.0.0.8", False), ("192.88.99.1", False),
     ("198.18.0.1", False), ("224.0.0.1", False), ("::", False), ("::1", False),
     ("::127.0.0.1", False), ("::ffff:0:127.0.0.1", False), ("64:ff9b:1::7f00:1", False),
     ("2001:0:7f00:1::1", False), ("fec0::1", False), ("fd00::1", False), ("ff02::1", False),
     ("2001:db8::1", False), ("3fff::1", False), ("5f00::1", False), ("4000::1", False)],
)  # fmt: skip
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


PRIVATE_NETWORKS = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip


@given(st.sampled_from(PRIVATE_NETWORKS), st.integers(0, 2**32 - 1))
def test_no_private_address_hides_in_another(network, number):
    first, _, bits = network.partition("/")
    mask = (1 << (32 - int(bits))) - 1
    inner = int.from_bytes(socket.inet_aton(first), "big") | number & mask
    high, low = inner >> 16, inner & 0xFFFF
    for form in (
        socket.inet_ntoa(inner.to_bytes(4, "big")),
        f"::ffff:{high:x}:{low:x}",
        f"::{high:x}:{low:x}",
        f"::ffff:0:{high:x}:{low:x}",
        f"64:ff9b::{high:x}:{low:x}",
        f"64:ff9b:1::{high:x}:{low:x}",
        f"2002:{high:x}:{low:x}::1",
        f"2001:0:{high:x}:{low:x}::1",
        f"2001:0:808:808::{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}",
    ):
        assert not is_public(form), form


@pytest.fixture
def listener():
    """A server's place on this machine, and the connections that it gets."""
    found = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            try:
                while True:
                    found.append(server.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname(), found
        server.shutdown(socket.SHUT_RDWR)


def resolve_to(monkeypatch, *answers):
    """Let every name lead to these addresses, one look-up after the other."""
    left = list(answers)

    def look_up(host, port, *_, **__):
        here = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (here, port or 0))]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", look_up)


def test_a_name_that_leads_to_a_private_address_is_refused(listener, monkeypatch):
    (host, port), found = listener
    resolve_to(monkeypatch, host)
    gate = Gate(False)
    with pytest.raises(OSError, match=f"private address: '{host}'"):
        gate.connect(("public.example", port), 5)
    assert gate.refused and not found
    Gate(True).connect(("public.example", port), 5).close()


def test_a_name_that_leads_elsewhere_the_second_time_is_refused(listener, monkeypatch):
    (host, port), found = listener
    resolve_to(monkeypatch, "8.8.8.8", host)
    gate = Gate(False, [f"http://public.example:{port}/"])
    with pytest.raises(OSError, match="private address"):
        gate.connect(("public.example", port), 5)
    assert not found


def test_what_the_user_has_named_may_be_private_at_its_port_alone(listener):
    (host, port), _ = listener
    Gate(False, [f"http://{host}:{port}/list.parquet"]).connect((host, port), 5).close()
    for named in (f"http://{host}:{port + 1}/", f"http://{host}/", "http://[/", "http:///"):
        with pytest.raises(OSError, match="private address"):
            Gate(False, [named]).connect((host, port), 5)
