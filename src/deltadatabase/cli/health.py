"""``deltadb health``: ask a running program whether it is alive, or serves data."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from deltadatabase.cli.running import address_text
from deltadatabase.errors import StartupError, Unavailable
from deltadatabase.rpc.channels import PROC_WORKER_SERVICE
from deltadatabase.rpc.health import check_health
from deltadatabase.settings import Address, HealthSettings, TlsFlags

EXIT_WELL: Final = 0
EXIT_UNWELL: Final = 1
WILDCARDS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


class _Pem(msgspec.Struct, frozen=True):
    """Certificates as ``rpc`` takes them."""

    cert: bytes
    key: bytes
    ca: bytes


def run_health(settings: HealthSettings) -> int:
    """Run ``deltadb health``; return its exit code. Raises StartupError for a file it cannot use."""
    reason = _ask_rest(settings) if settings.grpc_addr is None else _ask_grpc(settings, settings.grpc_addr)
    if reason:
        print(f"deltadb health: {reason}", file=sys.stderr)
        return EXIT_UNWELL
    print("ok")
    return EXIT_WELL


def _ask_rest(settings: HealthSettings) -> str:
    """Why the REST API is not well; "" when it is."""
    extensions = {"sni_hostname": settings.tls.server_name} if settings.tls.server_name else {}
    with httpx.Client(timeout=settings.timeout, verify=_authorities(settings.tls), trust_env=False) as client:
        try:
            answer = client.get(
                settings.url.rstrip("/") + ("/readyz" if settings.ready else "/livez"), extensions=extensions
            )
        except httpx.TransportError:
            return "the server does not answer: give its URL with -url (DELTADB_URL)"
    if answer.status_code == httpx.codes.OK:
        return ""
    try:
        problem = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.MsgspecError:
        return "this is not the REST API of a DeltaDatabase"
    return f"{problem.get('error', 'refused')}: {problem.get('detail', '')}"


def _ask_grpc(settings: HealthSettings, address: Address) -> str:
    """Why the gRPC server is not well; "" when it is."""
    tls = settings.tls
    pem = None
    if tls.ca is not None or tls.cert is not None:
        pem = _Pem(_read(tls.cert, "tls-cert"), _read(tls.key, "tls-key"), _read(tls.ca, "tls-ca"))
    host = "127.0.0.1" if address.host in WILDCARDS else address.host
    try:
        well = check_health(
            address_text(Address(host, address.port)),
            PROC_WORKER_SERVICE if settings.ready else "",
            timeout_s=settings.timeout,
            pem=pem,
            server_name=tls.server_name,
        )
    except Unavailable as exc:
        return exc.detail
    return "" if well else "not serving: it has not joined a main worker, or drains"


def _authorities(tls: TlsFlags) -> ssl.SSLContext | bool:
    if tls.ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=tls.ca)
    except (OSError, ssl.SSLError):
        raise StartupError("-tls-ca: the file holds no certificates", code="bad_flag") from None


def _read(path: Path | None, name: str) -> bytes:
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except OSError:
        raise StartupError(f"-{name}: the file cannot be read", code="bad_flag") from None
