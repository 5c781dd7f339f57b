"""``GET /export/{schema_id}``: documents as a stream of lines, in the order of the stored names.

Documents are read a bounded number and amount ahead of what the client has taken. What fails on
the way breaks the answer off without its proper end: half an export never looks like a whole one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Final

from deltadatabase import limits
from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, require
from deltadatabase.clock import Clock
from deltadatabase.errors import MethodNotAllowed, NotFound, Overloaded, Unavailable
from deltadatabase.gateway.asgi import StreamedAnswer
from deltadatabase.gateway.edge import Exchange
from deltadatabase.gateway.ndjson import render_line
from deltadatabase.gateway.patience import Patience
from deltadatabase.gateway.ports import Entities, Listing, Page
from deltadatabase.gateway.request import parameters
from deltadatabase.model import ListedEntity
from deltadatabase.storage.paths import check_key, check_schema_id, escape_key, unescape_key

PREFIX: Final = "/export/"
ROUTE: Final = PREFIX + "{schema_id}"
METHODS: Final = ("GET", "HEAD")
_NDJSON: Final = (b"content-type", b"application/x-ndjson")
_NO_STORE: Final = (b"cache-control", b"no-store")


class ExportHandler:
    """Answers export requests.

    Args:
        entities: where documents are.
        listing: which there are.
        accounts: who may do what.
        clock: monotonic time.
    """

    def __init__(
        self,
        entities: Entities,
        listing: Listing,
        accounts: Accounts,
        *,
        clock: Clock,
        patience_s: float = limits.IMPORT_PATIENCE_S,
    ) -> None:
        self._entities = entities
        self._listing = listing
        self._accounts = accounts
        self._clock = clock
        self._patience_s = patience_s
        self._places = _Places(limits.EXPORTS_MAX)

    async def __call__(self, exchange: Exchange) -> StreamedAnswer:
        """Begin the answer to one request. Raises ``DeltaError``."""
        head = exchange.head
        schema_id = head.path[len(PREFIX) :]
        if not schema_id:
            raise NotFound("there is nothing at this path", code="no_route")
        if head.method not in METHODS:
            raise MethodNotAllowed("exports know no such method", allow=METHODS)

        def authorize() -> None:
            require(self._accounts.confirm(head.authorization), Permission.READ, schema_id)

        principal = self._accounts.authenticate(head.authorization)
        check_schema_id(schema_id)
        require(principal, Permission.READ, schema_id)
        given = parameters(head.query, "prefix", "after")
        prefix, after = _stored(given, "prefix"), _stored(given, "after")
        place = self._places.take()
        patience = Patience(self._clock, self._patience_s)
        # Asked for here, so that a client is told why nothing can be exported now.
        try:
            first = await self._listing.list(schema_id, prefix=prefix, after=after)
        except Unavailable as exc:
            if exc.code != "timeout":
                raise
            # The names of a very large schema are being read for the first time.
            first = await patience.call(partial(self._listing.list, schema_id, prefix=prefix, after=after))
        export = _Export(
            self._entities,
            self._listing,
            schema_id,
            prefix,
            exchange.request_id,
            authorize,
            patience,
        )
        return StreamedAnswer(200, [_NDJSON, _NO_STORE], export.chunks(first, place))


def _stored(given: Mapping[str, str], name: str) -> str:
    """A key, or the beginning of one, in a query parameter, as it is stored; "" without it.

    Raises:
        Invalid: ``invalid_key``.
    """
    return escape_key(check_key(given[name])) if given.get(name) else ""


class _Export:
    """One export under way."""

    def __init__(
        self,
        entities: Entities,
        listing: Listing,
        schema_id: str,
        prefix: str,
        request_id: str,
        authorize: Callable[[], None],
        patience: Patience,
    ) -> None:
        self._entities = entities
        self._listing = listing
        self._schema_id = schema_id
        self._prefix = prefix
        self._request_id = request_id
        self._authorize = authorize
        self._patience = patience

    async def chunks(self, first: Page, place: object) -> AsyncGenerator[bytes]:
        """Give the lines, many at a time. Holds ``place`` as long as it exists."""
        gathered = bytearray()
        lines = self._lines(first)
        try:
            async for line in lines:
                gathered += line
                if len(gathered) >= limits.EXPORT_CHUNK_BYTES:
                    yield bytes(gathered)
                    gathered.clear()
        finally:
            await lines.aclose()
            del place
        if gathered:
            yield bytes(gathered)

    async def _lines(self, first: Page) -> AsyncGenerator[bytes]:
        ahead: deque[tuple[int, asyncio.Task[bytes]]] = deque()
        ahead_bytes = 0
        listed = self._listed(first)
        try:
            async for entity in listed:
                size = entity.size_bytes
                while ahead and (
                    len(ahead) >= limits.EXPORT_AHEAD_MAX
                    or ahead_bytes + size > limits.EXPORT_AHEAD_BYTES_MAX
                ):
                    taken, line = ahead.popleft()
                    ahead_bytes -= taken
                    yield await line
                # The key may end while the client takes its time.
                self._authorize()
                ahead.append((size, asyncio.create_task(self._line(entity))))
                ahead_bytes += size
            while ahead:
                yield await ahead.popleft()[1]
        finally:
            await listed.aclose()
            for _, line in ahead:
                line.cancel()
            await asyncio.gather(*(line for _, line in ahead), return_exceptions=True)

    async def _listed(self, page: Page) -> AsyncGenerator[ListedEntity]:
        while True:
            for entity in page.entities:
                yield entity
            if not page.next:
                return
            page = await self._patience.call(partial(self._next_page, page.next))

    async def _next_page(self, after: str) -> Page:
        return await self._listing.list(self._schema_id, prefix=self._prefix, after=after)

    async def _line(self, entity: ListedEntity) -> bytes:
        """One line; b"" for an entity that has been deleted since it was listed."""
        key = unescape_key(entity.name)
        try:
            result = await self._patience.call(
                lambda: self._entities.get(self._schema_id, key, request_id=self._request_id)
            )
        except NotFound:
            return b""
        return render_line(key, result.document)


class _Places:
    """Counts what is under way by the lifetimes of objects: a stream that never begins has no end."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._count = 0

    def take(self) -> _Place:
        """A place, given back when it is forgotten. Raises Overloaded."""
        if self._count >= self._count_max:
            raise Overloaded("too many exports are under way", code="too_many_exports")
        self._count += 1
        return _Place(self._give)

    def _give(self) -> None:
        self._count -= 1


class _Place:
    __slots__ = ("_give",)

    def __init__(self, give: Callable[[], None]) -> None:
        self._give = give

    def __del__(self) -> None:
        self._give()
