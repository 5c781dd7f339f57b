"""The ASGI vocabulary of the raw handlers: one answer as a value, and how it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import msgspec

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Timing = tuple[tuple[str, int], ...]
"""Where a worker spent the time of one request: names of its steps, and microseconds."""


class Answer(msgspec.Struct, frozen=True):
    """A complete response.

    Attributes:
        status: HTTP status code.
        headers: lower-case names, without ``content-length``.
        body: all of it.
        timing: the worker's part of the ``Server-Timing`` header; None where it isn't known.
    """

    status: int
    headers: Headers
    body: bytes = b""
    timing: Timing | None = None


class StreamedAnswer(NamedTuple):
    """A response that is made while it is sent.

    Attributes:
        status: HTTP status code.
        headers: lower-case names, without ``content-length``.
        chunks: its body, piece by piece; closed when the client leaves. Raising ends the response
            without its proper end, so that no client takes it for whole.
        timing: as for ``Answer``.
        take_s: the client is gone if it has not taken a piece within so many seconds; None: it may take
            its time.
    """

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]
    timing: Timing | None = None
    take_s: float | None = None


async def send_answer(answer: Answer, extra: Headers, send: Send, *, with_body: bool = True) -> None:
    """Send ``answer`` with ``extra`` headers; ``with_body=False`` is the answer to HEAD."""
    headers = answer.headers + extra
    if answer.status not in (204, 304):
        # A 304's length would be that of the document it doesn't carry, and a 204 has none at all
        # (RFC 9110, section 8.6).
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})
