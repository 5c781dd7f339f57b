"""Who is at the other end of a gRPC connection: its address, and on this machine its user."""

from __future__ import annotations

import ipaddress
import os
import struct
from pathlib import Path
from typing import Final
from urllib.parse import unquote

TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
ROOT: Final = 0

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def reachable_address(grpc_addr: str, peer: str) -> str:
    """Return where to dial a worker: its own word, or where it called from if it named no host.

    Args:
        grpc_addr: ``host:port`` as the worker said it; the host may be empty or a wildcard.
        peer: gRPC's name of the caller, such as ``ipv4:10.0.0.7:51234``.
    """
    host, _, port = grpc_addr.rpartition(":")
    if host.strip("[]") not in ("", "0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        return grpc_addr
    caller = _split(peer)[0]
    return f"[{caller}]:{port}" if ":" in caller else f"{caller}:{port}"


def is_same_user(peer: str) -> bool:
    """Whether the caller is a process on this machine of our own user, or of root.

    False also where that cannot be found out (no ``/proc/net/tcp``): then a join token is needed.
    """
    host, port = _split(peer)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    if not (mapped or address).is_loopback:
        return False
    return _owner(mapped or address, port) in (ROOT, os.geteuid())


def _split(peer: str) -> tuple[str, int]:
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else 0


def _owner(address: Ip, port: int) -> int | None:
    """Return the user id that owns the local socket with this address (proc(5), /proc/net/tcp)."""
    wanted = {_kernel_form(address), _kernel_form(_mapped(address))}
    for table in TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            host, _, number = fields[1].partition(":")
            if host in wanted and int(number, 16) == port:
                return int(fields[7])
    return None


def _mapped(address: Ip) -> Ip:
    """An IPv4 address as a socket of both families shows it."""
    return ipaddress.IPv6Address(f"::ffff:{address}") if address.version == 4 else address


def _kernel_form(address: Ip) -> str:
    """Hex as the kernel prints it: each 32-bit word in the machine's own byte order."""
    words = struct.unpack(f"={len(address.packed) // 4}I", address.packed)
    return "".join(f"{word:08X}" for word in words)
