"""Values that settings are made of: secrets, addresses, durations and sizes, read from text."""

from __future__ import annotations

import hmac
import ipaddress
import re
from decimal import Decimal
from typing import Final, NamedTuple

_UNIT_S: Final = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
}
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h|d)")
_DURATION_S_MAX: Final = 36_500 * 86_400
_TEXT_MAX: Final = 40

_UNIT_BYTES: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "ki": 2**10,
    "kib": 2**10,
    "mi": 2**20,
    "mib": 2**20,
    "gi": 2**30,
    "gib": 2**30,
}
_SIZE: Final = re.compile(r"([0-9]{1,15}) ?([A-Za-z]{0,3})")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,252})")


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Secret:
    """Text that shows itself only when asked: ``repr``, ``str`` and ``format`` hide it.

    Attributes:
        file: the file that it was read from; "" when it was given itself.
    """

    __slots__ = ("_text", "file")

    def __init__(self, text: str, *, file: str = "") -> None:
        self._text = text
        self.file = file

    def reveal(self) -> str:
        """Return the text. Never log it, and never put it into an error."""
        return self._text

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))


class Address(NamedTuple):
    """A host and a TCP port. The host is a name or an IP address without brackets."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True when only programs of this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``host:port``; ``:port`` is every IPv4 interface, ``[::]:port`` every IPv6 one too.

    Raises:
        ValueError: it is no such address.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port_text) or int(port_text) > 65_535:
        raise ValueError("not an address such as 127.0.0.1:8080 or :8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("not an IPv6 address in brackets, such as [::1]:8080") from None
    elif host and not _HOST_NAME.fullmatch(host):
        raise ValueError("not an address such as 127.0.0.1:8080 or :8080")
    return Address(host or "0.0.0.0", int(port_text))  # noqa: S104 - documented meaning of an empty host


def parse_duration(text: str) -> float:
    """Read a duration such as ``500ms``, ``1h30m``, ``24h``, ``7d`` or ``0``; return seconds.

    The notation is that of Go's ``time.ParseDuration`` with ``d`` (24 hours) added and
    without a sign.

    Raises:
        ValueError: it is no duration, is negative, or exceeds a hundred years.
    """
    if text == "0":
        return 0.0
    if not 0 < len(text) <= _TEXT_MAX:
        raise ValueError("not a duration such as 500ms, 1h30m, 24h or 7d")
    total, end = Decimal(0), 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != end:
            break
        total += Decimal(part[1]) * _UNIT_S[part[2]]
        end = part.end()
    if end != len(text):
        raise ValueError("not a duration such as 500ms, 1h30m, 24h or 7d")
    if total > _DURATION_S_MAX:
        raise ValueError("longer than a hundred years")
    return float(total)


def format_duration(seconds: float) -> str:
    """Write a duration as ``parse_duration`` reads it, exact to the microsecond."""
    left_us = round(seconds * 1_000_000)
    if left_us == 0:
        return "0"
    text = ""
    for unit, unit_us in (("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1)):
        count, left_us = divmod(left_us, unit_us)
        if count:
            text += f"{count}{unit}"
    return text


def parse_size(text: str) -> int:
    """Read a size such as ``256MiB``, ``1GiB``, ``10MB`` or ``4096``; return bytes.

    ``KiB MiB GiB`` (also ``Ki Mi Gi``) are powers of 1024, ``kB MB GB`` powers of 1000.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text)
    if match is None or match[2].lower() not in _UNIT_BYTES:
        raise ValueError("not a size such as 256MiB, 1GiB or 4096")
    return int(match[1]) * _UNIT_BYTES[match[2].lower()]


def format_size(size_bytes: int) -> str:
    """Write a size as ``parse_size`` reads it, in the largest unit that divides it."""
    for unit, unit_bytes in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes}{unit}"
    return str(size_bytes)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma-separated list of networks such as ``10.0.0.0/8``, or single addresses.

    Raises:
        ValueError: one of them is none.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))
    except ValueError:
        raise ValueError("not a list of networks such as 10.0.0.0/8,fd00::/8") from None


def format_networks(networks: tuple[Network, ...]) -> str:
    """Write networks as ``parse_networks`` reads them."""
    return ",".join(map(str, networks))


def parse_bool(text: str) -> bool:
    """Read ``true`` or ``false`` in the spellings that Go's flags take.

    Raises:
        ValueError: it is neither.
    """
    if text in {"true", "True", "TRUE", "t", "T", "1"}:
        return True
    if text in {"false", "False", "FALSE", "f", "F", "0"}:
        return False
    raise ValueError("neither true nor false")
