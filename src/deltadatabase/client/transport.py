"""Our requests as httpx sends them, and its answers and errors as ours."""

from __future__ import annotations

from typing import Any, Final

import httpx

from deltadatabase.client.options import timeout_of
from deltadatabase.client.requests import Failure, Request, Response

ERRORS: Final = (httpx.RequestError, httpx.StreamError)
"""Every way in which httpx fails to bring an answer."""

_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def arguments(request: Request, usual_s: float) -> dict[str, Any]:
    """The arguments of ``build_request``."""
    return {
        "method": request.method,
        "url": request.path,
        "headers": dict(request.headers),
        "content": request.body or None,
        "timeout": timeout_of(request, usual_s),
    }


def response_of(answer: httpx.Response, body: bytes) -> Response:
    """An answer of httpx as ours."""
    return Response(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, body)


def failure_of(exc: Exception) -> Failure:
    """An error of httpx as ours. Its text is not kept, nor its request, which holds the key."""
    untrusted = isinstance(exc, httpx.ConnectError) and "certificate" in str(exc).lower()
    return Failure(sent=not isinstance(exc, _NOT_SENT), untrusted=untrusted)
