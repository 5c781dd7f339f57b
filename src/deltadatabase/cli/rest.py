"""The REST API of a running server, as the commands use it."""

from __future__ import annotations

import ssl
from typing import Any, TypeVar

import httpx
import msgspec

from deltadatabase.cli import keyfiles
from deltadatabase.errors import StartupError
from deltadatabase.settings import ClientFlags

TIMEOUT_S = 30.0
T = TypeVar("T")


class RestClient:
    """Sends requests with the caller's credentials.

    Args:
        settings: where the server is, and who asks.

    Raises:
        StartupError: ``bad_flag``: the file of authorities cannot be used.
    """

    def __init__(self, settings: ClientFlags) -> None:
        key = settings.key.reveal() if settings.key is not None else None
        if key is None:
            key = keyfiles.load(settings.state_path / keyfiles.ADMIN_KEY)
        try:
            verify = (
                ssl.create_default_context(cafile=settings.tls_ca) if settings.tls_ca is not None else True
            )
        except (OSError, ssl.SSLError):
            raise StartupError("-tls-ca: the file holds no certificates", code="bad_flag") from None
        self._client = httpx.Client(
            base_url=settings.url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT_S,
            verify=verify,
            trust_env=False,
        )

    def call(self, method: str, path: str, shape: type[T], body: Any = None) -> T:
        """Send a request; return its answer.

        Raises:
            StartupError: ``unreachable``, or the server's refusal with its code.
        """
        content = None if body is None else msgspec.json.encode(body)
        try:
            answer = self._client.request(method, path, content=content)
        except httpx.TransportError as exc:
            if "CERTIFICATE" in str(exc) or "certificate" in str(exc):
                raise StartupError(
                    "the server's certificate is not trusted: give its authority with -tls-ca",
                    code="untrusted",
                ) from None
            raise StartupError(
                "the server does not answer: give its URL with -url (DELTADB_URL), with https:// if it has "
                "a certificate",
                code="unreachable",
            ) from None
        try:
            if answer.is_success:
                return msgspec.json.decode(answer.content, type=shape)
            problem = msgspec.json.decode(answer.content, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise StartupError("this is not the REST API of a DeltaDatabase", code="unreachable") from None
        raise StartupError(str(problem.get("detail", "")), code=str(problem.get("error", "refused")))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
