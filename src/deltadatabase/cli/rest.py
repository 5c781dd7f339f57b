"""The client of a running server, as the flags of a command ask for it."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import msgspec

from deltadatabase.cli import keyfiles
from deltadatabase.client import Call, Client
from deltadatabase.client.requests import Request, Response
from deltadatabase.errors import DeltaError, Invalid, StartupError
from deltadatabase.settings import ClientFlags

T = TypeVar("T")


def client_of(settings: ClientFlags, *, give_up_after_s: float) -> Client:
    """Make the client; without a key it is the admin key that the state directory keeps, if there is one.

    Raises:
        StartupError: ``bad_flag``: the file of authorities cannot be used; ``state_unusable``.
    """
    key = settings.key.reveal() if settings.key is not None else None
    if key is None:
        key = keyfiles.load(settings.state_path / keyfiles.ADMIN_KEY)
    # It tells URLs, in which keys of entities are.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return Client(settings.url, key, tls_ca=settings.tls_ca, give_up_after_s=give_up_after_s)
    except Invalid as exc:
        raise StartupError(f"-{exc.detail.replace('_', '-')}", code="bad_flag") from None


class RestClient:
    """Sends the requests of operators' commands, each once.

    Args:
        settings: where the server is, and who asks.

    Raises:
        StartupError: as of ``client_of``.
    """

    def __init__(self, settings: ClientFlags) -> None:
        self._client = client_of(settings, give_up_after_s=0.0)

    def call(self, method: str, path: str, shape: type[T], body: Any = None) -> T:
        """Send a request; return its answer.

        Raises:
            StartupError: ``unreachable``, or the server's refusal with its code.
        """
        content = b"" if body is None else msgspec.json.encode(body)

        def parse(response: Response) -> T:
            try:
                return msgspec.json.decode(response.body, type=shape)
            except msgspec.MsgspecError:
                raise StartupError(
                    "this is not the REST API of a DeltaDatabase", code="unreachable"
                ) from None

        try:
            return self._client.call(Call(Request(method, path, {}, content), parse))
        except DeltaError as exc:
            raise StartupError(exc.detail, code=exc.code) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
