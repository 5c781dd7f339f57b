"""``POST /import/{schema_id}``: documents as a stream of lines, each written on its own.

Memory is bounded by the window of lines that are being written; while it is full nothing more is
taken from the client. A line is confirmed by the answer alone, so a broken stream confirms none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from deltadatabase import limits
from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, require
from deltadatabase.clock import Clock, Random
from deltadatabase.errors import (
    DeltaError,
    Internal,
    Invalid,
    Issue,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    TooLarge,
    VersionMismatch,
)
from deltadatabase.gateway.asgi import Answer
from deltadatabase.gateway.edge import Exchange
from deltadatabase.gateway.ndjson import Line, LineSplitter, line_bytes_max, parse_line
from deltadatabase.gateway.patience import Patience
from deltadatabase.gateway.ports import Entities
from deltadatabase.gateway.problem import code_of
from deltadatabase.gateway.request import choice, parameters, switch
from deltadatabase.model import Result
from deltadatabase.storage.paths import check_schema_id
from deltadatabase.telemetry.logging import get_logger

_log = get_logger(__name__)

PREFIX: Final = "/import/"
ROUTE: Final = PREFIX + "{schema_id}"
_JSON: Final = (b"content-type", b"application/json")
_NO_STORE: Final = (b"cache-control", b"no-store")
_ISSUES_MAX: Final = 3


class LineError(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one line was not imported.

    Attributes:
        line: its number, from 1.
        error: stable code, as in a problem document.
        detail: the reason in words.
        key: of the entity; absent where the line holds none that could be one.
        errors: the first of the reasons for which a schema refuses the document.
    """

    line: int
    error: str
    detail: str
    key: str = ""
    errors: tuple[Issue, ...] = ()


class Imported(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What became of the lines of an import: ``lines`` is imported, skipped and failed together.

    Attributes:
        lines: read; blank ones are not counted.
        imported: stored.
        created: of these, entities that were absent before.
        skipped: left alone, because the entity exists (``skip_existing``).
        failed: not stored; or, with the error ``outcome_unknown``, perhaps.
        errors: of these the first 1,000, in order of the lines.
        stopped_at: number of the first failed line, where the import ended there (``on_error=stop``).
    """

    lines: int
    imported: int
    created: int
    skipped: int
    failed: int
    errors: list[LineError]
    stopped_at: int = 0


class ImportHandler:
    """Answers import requests.

    Args:
        entities: where documents go.
        accounts: who may do what.
        document_bytes_max: limit of one document.
        clock: monotonic time.
        random: write ids.
    """

    def __init__(
        self,
        entities: Entities,
        accounts: Accounts,
        *,
        document_bytes_max: int,
        clock: Clock,
        random: Random,
        patience_s: float = limits.IMPORT_PATIENCE_S,
    ) -> None:
        self._entities = entities
        self._accounts = accounts
        self._document_bytes_max = document_bytes_max
        self._clock = clock
        self._random = random
        self._patience_s = patience_s
        self._running: set[_Import] = set()

    async def __call__(self, exchange: Exchange) -> Answer:
        """Answer one request, when its body has ended. Raises ``DeltaError``."""
        head = exchange.head
        schema_id = head.path[len(PREFIX) :]
        if not schema_id:
            raise NotFound("there is nothing at this path", code="no_route")
        if head.method != "POST":
            raise MethodNotAllowed("imports know no such method", allow=("POST",))

        def authorize() -> None:
            require(self._accounts.confirm(head.authorization), Permission.WRITE, schema_id)

        principal = self._accounts.authenticate(head.authorization)
        check_schema_id(schema_id)
        require(principal, Permission.WRITE, schema_id)
        given = parameters(head.query, "skip_existing", "on_error")
        skip_existing = switch(given, "skip_existing")
        stops = choice(given, "on_error", ("continue", "stop"), "continue") == "stop"
        if len(self._running) >= limits.IMPORTS_MAX:
            raise Overloaded("too many imports are under way", code="too_many_imports")
        run = _Import(
            self._entities,
            schema_id,
            exchange.request_id,
            authorize,
            Patience(self._clock, self._patience_s),
            self._random,
            document_bytes_max=self._document_bytes_max,
            skip_existing=skip_existing,
            stops=stops,
        )
        # It holds its place until its last write has ended, also when the client has left.
        self._running.add(run)
        run.when_done(lambda: self._running.discard(run))
        try:
            await run.take(exchange.body_chunks())
        except DeltaError as exc:
            await run.settle()
            raise _told(exc, run.report()) from None
        finally:
            run.close()
        await run.settle()
        return Answer(200, [_JSON, _NO_STORE], msgspec.json.encode(run.report()))


def _told(error: DeltaError, so_far: Imported) -> DeltaError:
    """The error that ended an import, with what had been done by then."""
    error.detail = (
        f"{error.detail}; before that {so_far.imported} lines were imported, "
        f"{so_far.skipped} skipped and {so_far.failed} failed"
    )
    return error


class _Import:
    """One import under way."""

    def __init__(
        self,
        entities: Entities,
        schema_id: str,
        request_id: str,
        authorize: Callable[[], None],
        patience: Patience,
        random: Random,
        *,
        document_bytes_max: int,
        skip_existing: bool,
        stops: bool,
    ) -> None:
        self._entities = entities
        self._schema_id = schema_id
        self._request_id = request_id
        self._authorize = authorize
        self._patience = patience
        self._random = random
        self._document_bytes_max = document_bytes_max
        self._condition = ("*",) if skip_existing else None
        self._stops = stops
        self._counts = Imported(lines=0, imported=0, created=0, skipped=0, failed=0, errors=[])
        self._window = _Window(limits.IMPORT_IN_FLIGHT_MAX, limits.IMPORT_IN_FLIGHT_BYTES_MAX)
        # The last write of each key that is under way.
        self._latest: dict[str, asyncio.Task[None]] = {}
        self._closed = False
        self._done: Callable[[], None] = lambda: None

    async def take(self, chunks: AsyncIterator[bytes]) -> None:
        """Begin to write every line. Raises what ends the stream, or the right to write."""
        splitter = LineSplitter(line_bytes_max(self._document_bytes_max))
        turn = 0
        async for chunk in chunks:
            for line in splitter.feed(chunk):
                await self._take_line(line)
                if self._counts.stopped_at:
                    return
                # Lines that are refused wait for nothing, and one piece may hold a hundred thousand.
                turn += 1
                if turn % limits.IMPORT_TURN_LINES == 0:
                    await asyncio.sleep(0)
        for line in splitter.end():
            await self._take_line(line)

    async def settle(self) -> None:
        """Wait until every write that was begun has ended."""
        await self._window.empty()

    def close(self) -> None:
        """No line comes any more."""
        self._closed = True
        self._check_done()

    def when_done(self, done: Callable[[], None]) -> None:
        """Call ``done`` once it is closed and no write is under way."""
        self._done = done

    def report(self) -> Imported:
        """What has been done so far."""
        self._counts.errors.sort(key=lambda error: error.line)
        return self._counts

    def _check_done(self) -> None:
        if self._closed and not self._window.count:
            self._done()

    async def _take_line(self, line: Line) -> None:
        self._authorize()
        self._counts.lines += 1
        if line.text is None:
            return self._fail(line.number, "", TooLarge("the line is longer than any document may be"))
        try:
            key, document = parse_line(line.text, self._document_bytes_max)
        except Invalid as exc:
            return self._fail(line.number, "", exc)
        await self._window.enter(len(document))
        if self._counts.stopped_at:
            self._counts.lines -= 1
            self._window.leave(len(document))
            return None
        earlier = self._latest.get(key)
        self._latest[key] = asyncio.create_task(self._write(line.number, key, document, earlier))
        return None

    async def _write(
        self, number: int, key: str, document: bytes, earlier: asyncio.Task[None] | None
    ) -> None:
        try:
            if earlier is not None:
                # Two lines with one key: the later one is what stays.
                await asyncio.wait({earlier})
            result = await self._put(key, document)
        except VersionMismatch as exc:
            if self._condition is None:
                self._fail(number, key, exc)
            else:
                self._counts.skipped += 1
        except DeltaError as exc:
            self._fail(number, key, exc)
        except Exception as exc:  # noqa: BLE001 - a mistake of ours must not be lost in a task
            _log.error("unexpected failure", error=exc, request_id=self._request_id)
            self._fail(number, key, Internal("internal error"))
        else:
            self._counts.imported += 1
            self._counts.created += result.created
        finally:
            if self._latest.get(key) is asyncio.current_task():
                del self._latest[key]
            self._window.leave(len(document))
            self._check_done()

    async def _put(self, key: str, document: bytes) -> Result:
        # One name for all tries: what was applied without an answer is recognised, not repeated.
        write_id = self._random(limits.WRITE_ID_BYTES)
        return await self._patience.call(
            lambda: self._entities.put_one(
                self._schema_id,
                key,
                document,
                if_none_match=self._condition,
                write_id=write_id,
                request_id=self._request_id,
            )
        )

    def _fail(self, number: int, key: str, error: DeltaError) -> None:
        counts = self._counts
        counts.failed += 1
        if self._stops and not 0 < counts.stopped_at < number:
            counts.stopped_at = number
        if len(counts.errors) < limits.IMPORT_ERRORS_MAX:
            issues = error.issues[:_ISSUES_MAX]
            counts.errors.append(LineError(number, code_of(error), error.detail, key, issues))


class _Window:
    """Bounds what is under way, by number and by bytes. One waits for room; anybody leaves."""

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self.count = 0
        self._bytes = 0
        self._waiting: asyncio.Future[None] | None = None

    async def enter(self, size: int) -> None:
        """Wait for room, and take it. What is larger than all of it is let in alone."""
        while self.count and (self.count >= self._count_max or self._bytes + size > self._bytes_max):
            await self._change()
        self.count += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """Give room back."""
        self.count -= 1
        self._bytes -= size
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def empty(self) -> None:
        """Wait until nothing is under way."""
        while self.count:
            await self._change()

    async def _change(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting
