"""Where a request comes from: the peer, or behind trusted proxies what they say."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, final

from deltadatabase.gateway.asgi import Scope
from deltadatabase.settings import Network

_HOPS_MAX: Final = 32
"""Entries of X-Forwarded-For that are looked at, from the right; real chains have a few."""

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


@final
class ClientAddresses:
    """Tells clients' addresses for the audit log and the login throttle.

    Args:
        trusted: networks of the proxies whose ``X-Forwarded-For`` is believed; with none it is
            ignored, because anybody may send one.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def of(self, scope: Scope) -> str:
        """The client's address; "" where the server does not know.

        Behind trusted proxies it is the first address, read from the right, that is none of
        theirs. What stands left of it was written by the client and says nothing.
        """
        client = scope.get("client")
        peer = _parsed(client[0]) if client else None
        if peer is None:
            return client[0] if client else ""
        if self._trusted and self._trusts(peer):
            peer = self._forwarded_for(scope, peer)
        return str(peer)

    def _forwarded_for(self, scope: Scope, peer: _Ip) -> _Ip:
        values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        hops = b",".join(values).decode("latin-1").rsplit(",", _HOPS_MAX)[-_HOPS_MAX:]
        for hop in reversed(hops):
            address = _parsed(hop.strip())
            if address is None:
                break
            peer = address
            if not self._trusts(peer):
                break
        return peer

    def _trusts(self, address: _Ip) -> bool:
        return any(address in network for network in self._trusted)


def _parsed(text: str) -> _Ip | None:
    """An address, perhaps with a port behind it; IPv4 inside IPv6 as what it is."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
