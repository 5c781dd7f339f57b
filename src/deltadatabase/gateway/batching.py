"""Serves the requests of a batch through the whole application, each as if it had come alone."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import msgspec

from deltadatabase import limits
from deltadatabase.errors import TooLarge, Unavailable
from deltadatabase.gateway.asgi import ASGIApp, Headers, Message, Scope
from deltadatabase.gateway.batch import (
    SAFE,
    BatchAnswer,
    BatchedRequest,
    BatchedResponse,
    lane_of,
    response,
    rounds,
)
from deltadatabase.gateway.problem import problem

BATCHED: Final = "deltadatabase.batched"
"""Marks the ASGI scope of a request that came in a batch."""
_COPIED: Final = ("asgi", "http_version", "scheme", "root_path", "client", "server")
_OUTER_HEADERS: Final = frozenset(
    {b"authorization", b"host", b"origin", b"x-forwarded-for", b"traceparent", b"tracestate"}
)
"""Who asks, from where: the same for each request of a batch."""


class _Reply(NamedTuple):
    """What a request was answered. ``body`` None: it did not fit."""

    status: int
    headers: Headers
    body: bytes | None


class Batches:
    """Executes batches. What the application is, ``serve_through`` tells before the first of them."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._gate = asyncio.Semaphore(limits.BATCHES_MAX)
        self._running: set[asyncio.Task[bytes]] = set()

    def serve_through(self, app: ASGIApp) -> None:
        """Send requests through ``app``, the outermost layer of all."""
        self._app = app

    async def run(self, requests: list[BatchedRequest], scope: Scope, request_id: str) -> bytes:
        """Serve a batch and give the answer's body.

        A client that leaves ends it: what was begun ends properly, and nothing more is begun.

        Args:
            requests: of the batch, in order.
            scope: of the batch itself.
            request_id: of the batch; those of its requests are made of it.
        """
        assert self._app is not None
        async with self._gate:
            batch = _Batch(self._app, requests, scope, request_id)
            task = asyncio.create_task(batch.run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                batch.abandon()
                raise


class _Batch:
    def __init__(self, app: ASGIApp, requests: list[BatchedRequest], scope: Scope, request_id: str) -> None:
        self._app = app
        self._requests = requests
        self._scope = scope
        self._headers = [(name, value) for name, value in scope["headers"] if name in _OUTER_HEADERS]
        self._request_id = request_id
        self._answers: list[BatchedResponse | None] = [None] * len(requests)
        self._room_bytes = limits.BATCH_ANSWER_BYTES_MAX
        self._at_once = asyncio.Semaphore(limits.BATCH_AT_ONCE_MAX)
        self._abandoned = False

    def abandon(self) -> None:
        """Begin nothing more."""
        self._abandoned = True

    async def run(self) -> bytes:
        """Serve all requests; the answer's body."""
        lanes = [lane_of(request.method, request.target) for request in self._requests]
        for lanes_beside in rounds(lanes):
            await asyncio.gather(*(self._serve_in_turn(numbers) for numbers in lanes_beside))
        return msgspec.json.encode(BatchAnswer([answer for answer in self._answers if answer is not None]))

    async def _serve_in_turn(self, numbers: list[int]) -> None:
        for number in numbers:
            async with self._at_once:
                if self._abandoned:
                    return
                self._answers[number] = await self._serve(number)

    async def _serve(self, number: int) -> BatchedResponse:
        request = self._requests[number]
        request_id = f"{self._request_id}.{number}"
        reply = await self._call(request, request_id)
        if reply.body is not None:
            return response(reply.status, request.target, reply.headers, reply.body)
        if request.method not in SAFE:
            return response(reply.status, request.target, reply.headers, None, omitted=True)
        # A 200 without its document would be taken for one that is null.
        refused = problem(
            TooLarge("the answers of the batch are too large together; ask for this one alone"), request_id
        )
        return response(refused.status, request.target, refused.headers, refused.body)

    async def _call(self, request: BatchedRequest, request_id: str) -> _Reply:
        """Send one request through the application, and collect its answer as far as there is room."""
        raw, _, query = request.target.encode().partition(b"?")
        body = b"" if request.body is None else bytes(request.body)
        headers = [*self._headers, *request.headers]
        if not any(name == b"x-request-id" for name, _ in request.headers):
            headers.append((b"x-request-id", request_id.encode()))
        if request.body is not None:
            headers.append((b"content-length", b"%d" % len(body)))
        scope: dict[str, Any] = {name: self._scope[name] for name in _COPIED if name in self._scope}
        scope |= {
            "type": "http",
            "method": request.method,
            # As the server below gives it: decoded leniently. What counts is the raw one.
            "path": raw.decode(),
            "raw_path": raw,
            "query_string": query,
            "headers": headers,
            "state": {},
            BATCHED: True,
        }
        pending = [body]
        status = 0
        answered: Headers = []
        chunks: list[bytes] = []
        fits = True
        ended = False

        async def receive() -> Message:
            if pending:
                return {"type": "http.request", "body": pending.pop(), "more_body": False}
            # It stays as long as it is answered.
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        async def send(message: Message) -> None:
            nonlocal status, answered, fits, ended
            if message["type"] == "http.response.start":
                status, answered = message["status"], list(message["headers"])
                return
            chunk = bytes(message.get("body", b""))
            ended = not message.get("more_body", False)
            if fits and len(chunk) <= self._room_bytes:
                self._room_bytes -= len(chunk)
                chunks.append(chunk)
            else:
                fits = False
                self._room_bytes += sum(map(len, chunks))
                chunks.clear()

        await self._app(scope, receive, send)
        if not ended:
            failed = problem(Unavailable("the answer broke off", code="broken_answer"), request_id)
            return _Reply(failed.status, failed.headers, failed.body)
        return _Reply(status, answered, b"".join(chunks) if fits else None)
