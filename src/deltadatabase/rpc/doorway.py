"""How many callers that have proven nothing yet may be served at once, in all and from one source.

What a stranger sends is read before it can be judged, so each place is worth the largest message
that the server takes. A source that fills its places keeps nobody else out.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, final
from urllib.parse import unquote

import msgspec

from deltadatabase import limits
from deltadatabase.errors import Overloaded

IPV6_NETWORK_BITS: Final = 64
"""One customer of a provider commonly has all addresses of such a network."""


class Places(msgspec.Struct, frozen=True):
    """How many callers are let in at once.

    Attributes:
        in_all: from everywhere.
        of_one: from one source.
    """

    in_all: int
    of_one: int


def places_for(message_bytes_max: int) -> Places:
    """Return the places of a server whose strangers may each send one message of this size."""
    fitting = limits.STRANGERS_BYTES_MAX // message_bytes_max
    in_all = max(limits.STRANGERS_MIN, min(fitting, limits.STRANGERS_MAX))
    return Places(in_all, in_all // limits.STRANGER_SOURCES_MIN)


@final
class Doorway:
    """Counts the callers inside. Its memory is bounded by their number."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._inside: Counter[str] = Counter()
        self._count = 0

    @contextlib.contextmanager
    def place(self, peer: str) -> Iterator[None]:
        """Hold a place for a caller, named as gRPC names it, while this is entered.

        Raises:
            Overloaded: ``too_many_handshakes``: there is none for it now.
        """
        source = source_of(peer)
        if self._count >= self._places.in_all or self._inside[source] >= self._places.of_one:
            # An absent key that was asked for is not kept by a Counter.
            raise Overloaded("too many callers are being admitted at once", code="too_many_handshakes")
        self._count += 1
        self._inside[source] += 1
        try:
            yield
        finally:
            self._count -= 1
            self._inside[source] -= 1
            if not self._inside[source]:
                del self._inside[source]


def source_of(peer: str) -> str:
    """Name where a caller comes from: its IPv4 address, its IPv6 network, or "" for anything else.

    Args:
        peer: gRPC's name of it, such as ``ipv4:10.0.0.7:51234`` or ``ipv6:%5B::1%5D:51234``.
    """
    return network_of(unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]"))


@lru_cache(maxsize=1024)
def network_of(host: str) -> str:
    """Name the source that an address belongs to; "" for what is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, IPV6_NETWORK_BITS), strict=False))
