"""Where the server is, who asks, and how patient the client is."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from deltadatabase import limits
from deltadatabase.client.requests import Request
from deltadatabase.client.retrying import RetryPolicy
from deltadatabase.client.steps import Means
from deltadatabase.clock import SystemClock, system_random
from deltadatabase.errors import Invalid

URL_DEFAULT: Final = "http://127.0.0.1:8080"

_KEY: Final = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True)
class Options:
    """What both clients are made of.

    Attributes:
        url: of the REST API; DELTADB_URL, else the local one.
        key: admin key, API key or session token; DELTADB_KEY, else none. Not in the ``repr``.
        tls_ca: file of authorities, PEM; None: those that come with httpx.
        timeout_s: how long one request may wait for its answer.
        give_up_after_s: how long one call may try; 0 sends every request once.
        connections_max: open at the same time.
    """

    url: str | None
    key: str | None = field(repr=False)
    tls_ca: str | Path | None
    timeout_s: float
    give_up_after_s: float
    connections_max: int

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``httpx.Client`` and ``httpx.AsyncClient``.

        Raises:
            Invalid: ``bad_url``, ``bad_key`` or ``bad_tls_ca``.
        """
        headers = {"accept-encoding": "identity", "user-agent": "deltadatabase-python"}
        if self.key:
            if not _KEY.fullmatch(self.key):
                raise Invalid("the key is not of printable ASCII characters without spaces", code="bad_key")
            headers["authorization"] = f"Bearer {self.key}"
        return {
            "base_url": checked_url(self.url or URL_DEFAULT),
            "headers": headers,
            "timeout": httpx.Timeout(
                self.timeout_s, connect=min(limits.CLIENT_CONNECT_TIMEOUT_S, self.timeout_s)
            ),
            "limits": httpx.Limits(
                max_connections=self.connections_max, max_keepalive_connections=self.connections_max
            ),
            "verify": authorities(self.tls_ca),
            # The key goes to this server only: to no proxy, and to nowhere that a redirect names.
            "trust_env": False,
            "follow_redirects": False,
        }

    def means(self) -> Means:
        """What calls decide by."""
        return Means(SystemClock(), system_random, RetryPolicy(self.give_up_after_s))


def from_environment(url: str | None, key: str | None) -> tuple[str, str | None]:
    """Complete URL and key by DELTADB_URL and DELTADB_KEY."""
    environ: Mapping[str, str] = os.environ  # noqa: TID251 - the client is a program's own edge
    return url or environ.get("DELTADB_URL") or URL_DEFAULT, key or environ.get("DELTADB_KEY") or None


def timeout_of(request: Request, usual_s: float) -> httpx.Timeout:
    """The time limits of one request."""
    usual_s = usual_s if request.timeout_s is None else request.timeout_s
    return httpx.Timeout(usual_s, connect=min(limits.CLIENT_CONNECT_TIMEOUT_S, usual_s))


def checked_url(url: str) -> str:
    """Return the URL without a slash at its end.

    Raises:
        Invalid: ``bad_url``; its text, which may hold a password, is not repeated.
    """
    try:
        parts = urlsplit(url)
        well = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        well = well and not ("@" in parts.netloc or parts.query or parts.fragment)
    except ValueError:
        well = False
    if not well:
        raise Invalid("not the URL of a server, such as http://127.0.0.1:8080", code="bad_url")
    return url.rstrip("/")


def authorities(tls_ca: str | Path | None) -> ssl.SSLContext | bool:
    """What certificates are checked with.

    Raises:
        Invalid: ``bad_tls_ca``.
    """
    if tls_ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=tls_ca)
    except (OSError, ssl.SSLError):
        raise Invalid("tls_ca: the file holds no certificates", code="bad_tls_ca") from None
