from __future__ import annotations

import pytest

from deltadatabase.gateway.addresses import ClientAddresses
from deltadatabase.settings.values import parse_networks

PROXIES = parse_networks("10.0.0.0/8,fd00::/8,192.0.2.7")


def seen(peer: str | None, *forwarded: str, trusted=PROXIES) -> str:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    client = None if peer is None else (peer, 50000)
    return ClientAddresses(trusted).of({"client": client, "headers": headers})


@pytest.mark.parametrize("header", ["1.1.1.1", "10.0.0.1", "", "x"])
def test_without_trusted_proxies_the_header_says_nothing(header):
    assert seen("10.0.0.1", header, trusted=()) == "10.0.0.1"


def test_a_peer_that_is_no_trusted_proxy_says_nothing():
    assert seen("198.51.100.1", "1.1.1.1") == "198.51.100.1"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        # What the client wrote itself stands left of what the proxy saw.
        (["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9, 10.2.3.4"], "203.0.113.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8::9]:4711"], "2001:db8::9"),
        (["2001:db8::9"], "2001:db8::9"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["nonsense"], "10.0.0.1"),
        (["203.0.113.9, nonsense"], "10.0.0.1"),
        (["unknown, 10.9.9.9"], "10.9.9.9"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["\xff\x00, 203.0.113.9"], "203.0.113.9"),
        ([", ".join(["10.1.1.1"] * 1000)], "10.1.1.1"),
    ],
)
def test_behind_trusted_proxies_the_first_stranger_from_the_right_is_the_client(forwarded, address):
    assert seen("10.0.0.1", *forwarded) == address


def test_a_proxy_on_a_socket_of_both_families_is_known():
    assert seen("::ffff:10.0.0.1", "203.0.113.9") == "203.0.113.9"
    assert seen("fd00::1", "203.0.113.9") == "203.0.113.9"


def test_a_client_that_the_server_does_not_know():
    assert seen(None, "203.0.113.9") == ""
    assert seen("unix", "203.0.113.9") == "unix"
