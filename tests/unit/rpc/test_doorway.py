"""Places for strangers: so many in all, so many from one source, and nothing is remembered."""

from __future__ import annotations

import contextlib

import pytest

from deltadatabase import limits
from deltadatabase.errors import Overloaded
from deltadatabase.rpc.doorway import Doorway, Places, places_for, source_of


def enter(stack: contextlib.ExitStack, doorway: Doorway, peer: str) -> bool:
    try:
        stack.enter_context(doorway.place(peer))
    except Overloaded as exc:
        assert exc.code == "too_many_handshakes"
        return False
    return True


def test_one_source_fills_its_own_places_only() -> None:
    doorway = Doorway(Places(in_all=8, of_one=2))
    with contextlib.ExitStack() as stack:
        let_in = [enter(stack, doorway, f"ipv4:10.0.0.1:{port}") for port in range(1000, 1100)]
        assert sum(let_in) == 2
        assert enter(stack, doorway, "ipv4:10.0.0.2:1000")
    with contextlib.ExitStack() as stack:
        assert enter(stack, doorway, "ipv4:10.0.0.1:1000")


def test_all_sources_together_have_so_many_places() -> None:
    doorway = Doorway(Places(in_all=8, of_one=2))
    with contextlib.ExitStack() as stack:
        assert sum(enter(stack, doorway, f"ipv4:10.0.0.{host}:1") for host in range(200)) == 8
    with contextlib.ExitStack() as stack:
        assert sum(enter(stack, doorway, f"ipv4:10.0.1.{host}:1") for host in range(200)) == 8


def test_a_place_is_free_again_whatever_ends_the_stay() -> None:
    doorway = Doorway(Places(in_all=1, of_one=1))
    for _ in range(3):
        with pytest.raises(RuntimeError), doorway.place("ipv4:10.0.0.1:1"):
            raise RuntimeError
    with doorway.place("ipv4:10.0.0.9:1"):
        pass


def test_nothing_is_kept_of_those_who_left_or_were_refused() -> None:
    doorway = Doorway(Places(in_all=1, of_one=1))
    with doorway.place("ipv4:10.0.0.1:1"):
        for host in range(256):
            with pytest.raises(Overloaded), doorway.place(f"ipv4:10.0.2.{host}:1"):
                pass
    assert not vars(doorway)["_inside"]


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("ipv4:10.0.0.7:51234", "10.0.0.7"),
        ("ipv6:%5B::1%5D:51234", "::/64"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:51234", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::1%5D:9", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:9", "fe80::/64"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:9", "10.0.0.7"),
        ("unix:", ""),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_a_source_is_an_address_or_an_ipv6_network(peer: str, source: str) -> None:
    assert source_of(peer) == source


@pytest.mark.parametrize(
    "message_bytes_max", [limits.KIB, limits.MIB, 32 * limits.MIB, limits.GRPC_MESSAGE_BYTES_MAX]
)
def test_no_source_alone_holds_more_than_a_part_of_the_places(message_bytes_max: int) -> None:
    places = places_for(message_bytes_max)
    assert 2 <= places.of_one <= places.in_all // limits.STRANGER_SOURCES_MIN
    assert places.in_all <= limits.STRANGERS_MAX


def test_usual_settings_keep_strangers_within_their_share_of_memory() -> None:
    for message_bytes_max in (limits.CONTROL_MESSAGE_BYTES_MIN, limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT):
        assert places_for(message_bytes_max).in_all * message_bytes_max <= limits.STRANGERS_BYTES_MAX
