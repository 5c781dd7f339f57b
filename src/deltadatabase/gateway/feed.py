"""``GET /changes/{schema_id}``: the change feed over HTTP, in its three forms. See docs/changes.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, Principal, require
from deltadatabase.clock import Clock, rfc3339
from deltadatabase.errors import (
    DeltaError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    RequestTimeout,
    Unavailable,
)
from deltadatabase.gateway.asgi import Answer, Headers, StreamedAnswer
from deltadatabase.gateway.edge import Exchange
from deltadatabase.gateway.following import Batch, Delivery, Following
from deltadatabase.gateway.positions import Position, bad_token
from deltadatabase.gateway.problem import problem
from deltadatabase.gateway.request import choice, number, parameters
from deltadatabase.limits import (
    FEED_CHUNK_BYTES,
    FEED_COST_S,
    FEED_GATHER_S,
    FEED_HEARTBEAT_S,
    FEED_PAGE_DEFAULT,
    FEED_PAGE_MAX,
    FEED_RETRY_S,
    FEED_TAKE_S,
    FEED_TOKEN_BYTES_MAX,
    FEED_WAIT_DEFAULT_S,
    FEED_WAIT_MAX_S,
    FEEDS_MAX,
    FEEDS_OF_ONE_MAX,
)
from deltadatabase.storage.paths import check_schema_id

PREFIX: Final = "/changes/"
METHODS: Final = ("GET", "HEAD")
NORMAL: Final = "normal"
LONGPOLL: Final = "longpoll"
EVENTSOURCE: Final = "eventsource"
RECONNECT_MS: Final = 2000
_JSON: Final = (b"content-type", b"application/json")
_EVENTS: Final[Headers] = [
    (b"content-type", b"text/event-stream"),
    # Some proxies gather what passes through them, and a browser may show an old stream.
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_NO_STORE: Final = (b"cache-control", b"no-store")
_FULL_RETRY_S: Final = 10.0


class Wanted(NamedTuple):
    """What a request asks for.

    Attributes:
        schema_id: whose changes.
        token: where to begin; "" now.
        feed: ``normal``, ``longpoll`` or ``eventsource``.
        documents: bring the present documents along.
        limit: changes in one answer, at most.
        wait_s: for how long a ``longpoll`` waits.
    """

    schema_id: str
    token: str
    feed: str
    documents: bool
    limit: int
    wait_s: int


class FeedHandler:
    """Answers requests for changes.

    Args:
        following: where changes come from.
        accounts: who may do what.
        clock: monotonic time.
        feeds_max, feeds_of_one_max: feeds that wait or stream at once, of all and of one key.
        heartbeat_s: a stream says something at least so often, and asks again whether it may go on.
    """

    def __init__(
        self,
        following: Following,
        accounts: Accounts,
        *,
        clock: Clock,
        feeds_max: int = FEEDS_MAX,
        feeds_of_one_max: int = FEEDS_OF_ONE_MAX,
        heartbeat_s: float = FEED_HEARTBEAT_S,
    ) -> None:
        self._following = following
        self._accounts = accounts
        self._clock = clock
        self._feeds_max = feeds_max
        self._feeds_of_one_max = feeds_of_one_max
        self._heartbeat_s = heartbeat_s
        self._open_of: dict[str, int] = {}

    async def __call__(self, exchange: Exchange) -> Answer | StreamedAnswer:
        """Answer one request. Raises ``DeltaError``."""
        head = exchange.head
        schema_id = head.path[len(PREFIX) :]
        if not schema_id:
            raise NotFound("there is nothing at this path", code="no_route")
        if head.method not in METHODS:
            raise MethodNotAllowed("the change feed knows no such method", allow=METHODS)
        principal = self._accounts.authenticate(head.authorization)
        check_schema_id(schema_id)
        require(principal, Permission.READ, schema_id)
        wanted = parse(schema_id, head.query, head.fields.get(b"last-event-id"))
        position: Position
        if wanted.token:
            position = self._following.position(schema_id, wanted.token)
        else:
            position = self._following.now(schema_id)
            self._following.token(schema_id, position)
        if head.method == "HEAD" and wanted.feed != NORMAL:
            return Answer(200, _EVENTS if wanted.feed == EVENTSOURCE else [_JSON, _NO_STORE])
        if wanted.feed != NORMAL:
            self._check_room(principal)
        if wanted.feed == EVENTSOURCE:
            events = self._events(wanted, position, principal, exchange)
            return StreamedAnswer(200, _EVENTS, events, take_s=FEED_TAKE_S)
        if wanted.feed == LONGPOLL:
            with self._counted(principal):
                batch = await _while_there(exchange, self._first(wanted, position))
            # The key may have ended meanwhile.
            self._confirm(head.authorization, schema_id)
        else:
            batch = await self._following.read(schema_id, position, wanted.limit, documents=wanted.documents)
        return Answer(200, [_JSON, _NO_STORE], self._page(schema_id, batch))

    def _confirm(self, authorization: str | None, schema_id: str) -> None:
        """Raises Unauthenticated, Denied: the caller may read no more."""
        require(self._accounts.confirm(authorization), Permission.READ, schema_id)

    # -- how many ----------------------------------------------------------------------

    def _check_room(self, principal: Principal) -> None:
        if self._following.log.closed:
            raise Unavailable("the server ends", code="ending")
        if self._open_of.get(_holder(principal), 0) >= self._feeds_of_one_max:
            raise RateLimited(
                f"this key has {self._feeds_of_one_max} feeds open already",
                code="too_many_feeds",
                retry_after_s=_FULL_RETRY_S,
            )
        if self._following.open >= self._feeds_max:
            raise Overloaded("too many feeds are open", code="too_many_feeds", retry_after_s=_FULL_RETRY_S)

    @contextmanager
    def _counted(self, principal: Principal) -> Iterator[None]:
        holder = _holder(principal)
        self._following.open += 1
        self._open_of[holder] = self._open_of.get(holder, 0) + 1
        try:
            yield
        finally:
            self._following.open -= 1
            self._open_of[holder] -= 1
            if not self._open_of[holder]:
                del self._open_of[holder]

    # -- one answer --------------------------------------------------------------------

    async def _first(self, wanted: Wanted, position: Position) -> Batch:
        """Wait for changes; what is there by the end of the time, perhaps nothing."""
        deadline_s = self._clock.monotonic_s() + wanted.wait_s
        following = self._following
        while True:
            batch = await following.read(wanted.schema_id, position, wanted.limit, documents=wanted.documents)
            position = batch.position
            left_s = deadline_s - self._clock.monotonic_s()
            if batch.deliveries or left_s <= 0 or following.log.closed:
                return batch
            if not batch.more:
                await following.wait(wanted.schema_id, position, left_s)

    def _page(self, schema_id: str, batch: Batch) -> bytes:
        return msgspec.json.encode(
            {
                "changes": [_change(delivery) for delivery in batch.deliveries],
                "next": self._following.token(schema_id, batch.position),
                "more": batch.more,
            }
        )

    # -- a stream ----------------------------------------------------------------------

    async def _events(
        self, wanted: Wanted, position: Position, principal: Principal, exchange: Exchange
    ) -> AsyncIterator[bytes]:
        """Server-sent events (HTML standard, section 9.2), until the client leaves or may not go on."""
        with self._counted(principal):
            try:
                async for chunk in self._followed(wanted, position, exchange.head.authorization):
                    yield chunk
            except DeltaError as exc:
                # Whoever only sees the connection end would come back and ask the same again.
                yield _event("problem", problem(exc, exchange.request_id).body)

    async def _followed(
        self, wanted: Wanted, position: Position, authorization: str | None
    ) -> AsyncIterator[bytes]:
        following, schema_id = self._following, wanted.schema_id
        yield b"retry: %d\n" % RECONNECT_MS + self._mark(schema_id, position)
        beat_s = self._clock.monotonic_s() + self._heartbeat_s
        while not following.log.closed:
            self._confirm(authorization, schema_id)
            left_s = beat_s - self._clock.monotonic_s()
            if left_s <= 0:
                beat_s = self._clock.monotonic_s() + self._heartbeat_s
                yield b": heartbeat\n" + self._mark(schema_id, position)
                continue
            try:
                batch = await following.read(schema_id, position, FEED_PAGE_MAX, documents=wanted.documents)
            except (Unavailable, Overloaded):
                await asyncio.sleep(min(left_s, FEED_RETRY_S))
                continue
            position, more = batch.position, batch.more
            events = b"".join(self._changed(schema_id, delivery) for delivery in batch.deliveries)
            del batch  # It holds the documents, and the client may take its time.
            if events:
                # Asked again: reading may have taken its time.
                self._confirm(authorization, schema_id)
                for start in range(0, len(events), FEED_CHUNK_BYTES):
                    yield events[start : start + FEED_CHUNK_BYTES]
                del events
            if not more:
                await following.wait(schema_id, position, left_s)
                await asyncio.sleep(max(FEED_GATHER_S, following.open * FEED_COST_S))

    def _mark(self, schema_id: str, position: Position) -> bytes:
        """An event without data: clients take over its id and tell nobody."""
        return f"id: {self._following.token(schema_id, position)}\n\n".encode()

    def _changed(self, schema_id: str, delivery: Delivery) -> bytes:
        token = self._following.token(schema_id, delivery.position)
        return f"id: {token}\n".encode() + _event("change", msgspec.json.encode(_change(delivery)))


async def _while_there(exchange: Exchange, reading: Coroutine[Any, Any, Batch]) -> Batch:
    """Wait for changes, unless the client leaves: its place is then another one's.

    Raises:
        RequestTimeout: it has left.
    """
    task = asyncio.ensure_future(reading)
    leaving = asyncio.ensure_future(exchange.left())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        task.cancel()
        await asyncio.wait({task})
    if task.cancelled():
        raise RequestTimeout("the client has left")
    return task.result()


def parse(schema_id: str, query: bytes, last_event_id: bytes | None) -> Wanted:
    """Read the parameters of a request.

    Raises:
        Invalid: ``bad_query`` or ``bad_token``.
    """
    given = parameters(query, "since", "feed", "include", "limit", "timeout")
    token = last_event_id.decode("latin-1").strip() if last_event_id else ""
    token = token or given.get("since", "")
    # An empty one is a variable that nobody set: "from now" would leave changes out without a word.
    if len(token) > FEED_TOKEN_BYTES_MAX or (not token and "since" in given):
        raise bad_token()
    return Wanted(
        schema_id=schema_id,
        token=token,
        feed=choice(given, "feed", (NORMAL, LONGPOLL, EVENTSOURCE), NORMAL),
        documents=choice(given, "include", ("document",), "") != "",
        limit=number(given, "limit", FEED_PAGE_DEFAULT, 1, FEED_PAGE_MAX),
        wait_s=number(given, "timeout", FEED_WAIT_DEFAULT_S, 0, FEED_WAIT_MAX_S),
    )


def _holder(principal: Principal) -> str:
    # In dev mode and of the admin key all callers are one.
    return principal.key_id


def _change(delivery: Delivery) -> dict[str, Any]:
    change = delivery.change
    told: dict[str, Any] = {
        "key": change.key,
        "version": change.version,
        "etag": change.etag,
        "updated_at": rfc3339(change.updated_ms),
        "deleted": change.deleted,
    }
    if delivery.document is not None:
        told["document"] = msgspec.Raw(delivery.document)
    if delivery.damaged:
        told["error"] = "integrity"
    return told


def _event(name: str, data: bytes) -> bytes:
    # A document may hold line ends between its tokens; each line of an event has its own field.
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"event: %s\n" % name.encode() + b"".join(b"data: %s\n" % line for line in lines) + b"\n"
