"""The client that awaits."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import ExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, Self, TypeVar, cast, overload

import httpx

from deltadatabase.client import calls, transport
from deltadatabase.client.answers import (
    ApiKey,
    Change,
    Entity,
    ImportReport,
    Item,
    NewApiKey,
    Page,
    Progress,
    ScanReport,
    SchemaCount,
    SchemaStored,
    Worker,
    Written,
)
from deltadatabase.client.batching import batch
from deltadatabase.client.calls import Call, Include, Tags
from deltadatabase.client.changing import follow
from deltadatabase.client.exporting import WholeFile, export_lines
from deltadatabase.client.importing import OnError, OnProgress, import_lines, lines_of
from deltadatabase.client.options import Options, from_environment
from deltadatabase.client.paging import LIST_PAGE, pages
from deltadatabase.client.requests import Failure, Response
from deltadatabase.client.scanning import OnScan, scan
from deltadatabase.client.steps import END, Apply, Emit, Open, Read, Send, Sleep, Step, Steps, single
from deltadatabase.client.updating import update

T = TypeVar("T")
READ_BYTES: Final = 1024 * 1024
Many = list
"""A list, under a name that no method of the client has."""


class AsyncClient:
    """A DeltaDatabase, for programs with asyncio. It belongs to the event loop that first used it.

    Every method raises the errors of ``deltadatabase.errors``; ``status`` and ``request_id`` of an
    error tell which answer it came with. What certainly was not applied, and every write that the
    server recognises by the idempotency key that this client gives it, is tried again for
    ``give_up_after_s``.

    Args:
        url: of the REST API; by default DELTADB_URL, else ``http://127.0.0.1:8080``.
        key: admin key, API key or session token; by default DELTADB_KEY, else none (dev mode).
        tls_ca: file of authorities that the server's certificate is checked with, PEM.
        timeout_s: how long one request may wait for its answer.
        give_up_after_s: how long one call may try again; 0 sends every request once.
        connections_max: open at the same time; further requests wait for one.

    Raises:
        Invalid: ``bad_url``, ``bad_key`` or ``bad_tls_ca``.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        tls_ca: str | Path | None = None,
        timeout_s: float = 30.0,
        give_up_after_s: float = 60.0,
        connections_max: int = 100,
    ) -> None:
        url, key = from_environment(url, key)
        options = Options(url, key, tls_ca, timeout_s, give_up_after_s, connections_max)
        self._url = url
        self._timeout_s = timeout_s
        self._means = options.means()
        self._http = httpx.AsyncClient(**options.arguments())

    def __repr__(self) -> str:
        return f"AsyncClient(url={self._url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, call: Call[T]) -> T:
        """Do one call of ``deltadatabase.client.calls``."""
        return await self._run(single(call, self._means))

    async def batch(self, asked: Sequence[Call[Any]]) -> Many[Any]:
        """Do calls of ``deltadatabase.client.calls`` in few requests, in order where it matters.

        Gives for each its result, or the ``DeltaError`` that it failed with.
        """
        return await self._run(batch(asked, self._means))

    # -- entities ----------------------------------------------------------------------

    @overload
    async def get(self, schema: str, key: str) -> Entity[Any]: ...
    @overload
    async def get(
        self, schema: str, key: str, *, as_: type[T], known: Entity[T] | None = None
    ) -> Entity[T]: ...
    @overload
    async def get(self, schema: str, key: str, *, known: Entity[T]) -> Entity[T]: ...
    async def get(
        self, schema: str, key: str, *, as_: type[Any] | Any = Any, known: Entity[Any] | None = None
    ) -> Entity[Any]:
        """Read an entity.

        Args:
            schema: the schema id.
            key: the entity's name under it.
            as_: type of its value, as msgspec reads it; ``bytes`` gives the stored text.
            known: an earlier answer; it comes back itself, without transfer, if it is still current.

        Raises:
            NotFound: there is none.
        """
        return await self.call(calls.get(schema, key, as_=as_, known=known))

    async def head(self, schema: str, key: str) -> Written:
        """Ask for an entity's state without its document. Raises ``NotFound``."""
        return await self.call(calls.head(schema, key))

    async def put(
        self,
        schema: str,
        key: str,
        value: object,
        *,
        if_match: Tags = None,
        if_none_match: Tags = None,
        idempotency_key: str | None = None,
    ) -> Written:
        """Store a document.

        Args:
            schema: the schema id.
            key: the entity's name under it.
            value: anything that msgspec writes as JSON; bytes are JSON text and stored as they are.
            if_match: the ETag that must be current, or several, or ``*`` for any.
            if_none_match: ``*``: only if there is no such entity.
            idempotency_key: names this write, so that another run of the program may repeat it; by
                default a random one.

        Raises:
            VersionMismatch: a condition failed; ``etag`` is the current one.
            Invalid: it is no JSON, or its schema refuses it; ``issues`` tell why.
            OutcomeUnknown: it may have been applied; read before trying again.
        """
        return await self.call(
            calls.put(
                schema,
                key,
                value,
                if_match=if_match,
                if_none_match=if_none_match,
                idempotency_key=idempotency_key,
            )
        )

    async def patch(
        self,
        schema: str,
        key: str,
        change: object,
        *,
        kind: Literal["merge", "json"] | None = None,
        if_match: Tags = None,
        if_none_match: Tags = None,
        idempotency_key: str | None = None,
    ) -> Written:
        """Change a part of a document.

        Args:
            schema: the schema id.
            key: the entity's name under it.
            change: a merge patch (RFC 7396), or a list: operations of a JSON patch (RFC 6902).
            kind: says which of both it is, where the rule above does not fit.
            if_match: as of ``put``.
            if_none_match: as of ``put``.
            idempotency_key: as of ``put``.

        Raises:
            NotFound: there is no such entity.
            Conflict: the patch does not fit the document, or a ``test`` of it failed.
            Invalid, VersionMismatch, OutcomeUnknown: as of ``put``.
        """
        return await self.call(
            calls.patch(
                schema,
                key,
                change,
                kind=kind,
                if_match=if_match,
                if_none_match=if_none_match,
                idempotency_key=idempotency_key,
            )
        )

    async def delete(
        self,
        schema: str,
        key: str,
        *,
        if_match: Tags = None,
        if_none_match: Tags = None,
        idempotency_key: str | None = None,
    ) -> Written:
        """Remove an entity. Raises ``NotFound``, and as ``put`` does."""
        return await self.call(
            calls.delete(
                schema,
                key,
                if_match=if_match,
                if_none_match=if_none_match,
                idempotency_key=idempotency_key,
            )
        )

    @overload
    async def update(
        self,
        schema: str,
        key: str,
        function: Callable[[Any], Any],
        *,
        create: bool = False,
        attempts: int = 100,
    ) -> Entity[Any]: ...
    @overload
    async def update(
        self,
        schema: str,
        key: str,
        function: Callable[[T], T | Awaitable[T]],
        *,
        as_: type[T],
        create: Literal[False] = False,
        attempts: int = 100,
    ) -> Entity[T]: ...
    @overload
    async def update(
        self,
        schema: str,
        key: str,
        function: Callable[[T | None], T | Awaitable[T]],
        *,
        as_: type[T],
        create: bool,
        attempts: int = 100,
    ) -> Entity[T]: ...
    async def update(
        self,
        schema: str,
        key: str,
        function: Callable[[Any], Any],
        *,
        as_: type[Any] | Any = Any,
        create: bool = False,
        attempts: int = 100,
    ) -> Entity[Any]:
        """Put ``function(value)`` in the place of the value, once, whoever else writes meanwhile.

        Args:
            schema: the schema id.
            key: the entity's name under it.
            function: gets the present value, gives the next; called again if somebody was faster.
                It may be asynchronous.
            as_: type of the value.
            create: an absent entity is made; ``function`` then gets None.
            attempts: how often somebody may be faster before it gives up.

        Raises:
            VersionMismatch: somebody was faster each time.
            NotFound: there is no such entity.
        """
        steps = update(schema, key, function, self._means, as_=as_, create=create, attempts=attempts)
        return await self._run(steps)

    # -- lists and changes -------------------------------------------------------------

    @overload
    async def list(
        self,
        schema: str,
        *,
        prefix: str = "",
        limit: int | None = None,
        after: str | None = None,
        include: Include | None = None,
    ) -> Page[Any]: ...
    @overload
    async def list(
        self,
        schema: str,
        *,
        prefix: str = "",
        limit: int | None = None,
        after: str | None = None,
        include: Include | None = None,
        as_: type[T],
    ) -> Page[T]: ...
    async def list(
        self,
        schema: str,
        *,
        prefix: str = "",
        limit: int | None = None,
        after: str | None = None,
        include: Include | None = None,
        as_: type[Any] | Any = Any,
    ) -> Page[Any]:
        """List a part of a schema's entities, in the order of their stored names.

        Args:
            schema: the schema id.
            prefix: what their keys begin with.
            limit: at most so many, 1000 or less.
            after: ``next`` of the page before.
            include: ``meta`` adds version and ETag, ``document`` the documents, too.
            as_: type of the documents.
        """
        return await self.call(
            calls.list_page(schema, prefix=prefix, limit=limit, after=after, include=include, as_=as_)
        )

    @overload
    def iterate(
        self, schema: str, *, prefix: str = "", include: Include | None = None, page: int = LIST_PAGE
    ) -> AsyncGenerator[Item[Any], None]: ...
    @overload
    def iterate(
        self,
        schema: str,
        *,
        prefix: str = "",
        include: Include | None = None,
        page: int = LIST_PAGE,
        as_: type[T],
    ) -> AsyncGenerator[Item[T], None]: ...
    async def iterate(
        self,
        schema: str,
        *,
        prefix: str = "",
        include: Include | None = None,
        page: int = LIST_PAGE,
        as_: type[Any] | Any = Any,
    ) -> AsyncGenerator[Item[Any], None]:
        """List all of a schema's entities, page by page as they are consumed; see ``list``."""
        steps = pages(schema, self._means, prefix=prefix, include=include, limit=page, as_=as_)
        async with aclosing(self._emitted(steps)) as whole:
            async for items in whole:
                for item in items:
                    yield item

    @overload
    def changes(
        self, schema: str, *, since: str | None = None, include: Literal["document"] | None = None
    ) -> AsyncGenerator[Change[Any], None]: ...
    @overload
    def changes(
        self, schema: str, *, since: str | None = None, include: Literal["document"], as_: type[T]
    ) -> AsyncGenerator[Change[T], None]: ...
    async def changes(
        self,
        schema: str,
        *,
        since: str | None = None,
        include: Literal["document"] | None = None,
        as_: type[Any] | Any = Any,
    ) -> AsyncGenerator[Change[Any], None]:
        """Follow what changes, for ever, through broken connections and restarts of the server.

        Every state that lasts is delivered at least once, those of one entity in order.

        Args:
            schema: the schema id.
            since: ``token`` of the last change that was dealt with; None: from now on.
            include: ``document`` brings the documents, too.
            as_: type of the documents.

        Raises:
            Gone: ``since`` is too old: list, and begin anew.
        """
        steps = follow(schema, self._means, since=since, include=include, as_=as_)
        async with aclosing(self._emitted(steps)) as changes:
            async for change in changes:
                yield change

    # -- import and export -------------------------------------------------------------

    async def import_ndjson(
        self,
        schema: str,
        source: str
        | Path
        | BinaryIO
        | Iterable[bytes | str | tuple[str, object]]
        | AsyncIterable[bytes | str | tuple[str, object]],
        *,
        skip_existing: bool = False,
        skip_lines: int = 0,
        on_error: OnError = "continue",
        progress: OnProgress | None = None,
    ) -> ImportReport:
        """Store many documents.

        They go out in requests of bounded size. A request that fails is sent again: what it had
        stored already is stored once more, or counts as skipped with ``skip_existing``.

        Args:
            schema: the schema id.
            source: path or binary file of lines ``{"key": …, "document": …}``, or an iterable of such
                lines, or of pairs of key and document; asynchronous or not.
            skip_existing: leave entities alone that exist.
            skip_lines: leave out so many lines at the beginning, which an earlier run has done.
            on_error: ``stop`` ends it at the first line that is refused.
            progress: called after each request.

        Raises:
            DeltaError: a request failed for good; a note at the error says how many lines are done.
        """
        with ExitStack() as opened:
            if isinstance(source, (str, Path)):
                source = opened.enter_context(await asyncio.to_thread(Path(source).open, "rb"))
            blocking = hasattr(source, "readline")
            items: Any = lines_of(cast(BinaryIO, source)) if blocking else source
            steps = import_lines(
                schema,
                self._means,
                skip_existing=skip_existing,
                skip_lines=skip_lines,
                on_error=on_error,
                progress=progress,
            )
            return await self._run(steps, _Source(items, blocking=blocking))

    async def export_lines(
        self, schema: str, *, prefix: str = "", after: str | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Read all documents as lines ``{"key": …, "document": …}``, without their ends.

        A broken stream is taken up again behind its last line.

        Args:
            schema: the schema id.
            prefix: what keys begin with.
            after: begin behind this key.
        """
        steps = export_lines(schema, self._means, prefix=prefix, after=after)
        async with aclosing(self._emitted(steps)) as blocks:
            async for lines in blocks:
                for line in lines:
                    yield line

    async def export_ndjson(
        self,
        schema: str,
        path: str | Path,
        *,
        prefix: str = "",
        progress: OnProgress | None = None,
    ) -> Progress:
        """Write all documents to a file, which appears complete or not at all; see ``export_lines``."""
        done = Progress(0, 0)
        with WholeFile(Path(path)) as file:
            async for lines in self._emitted(export_lines(schema, self._means, prefix=prefix, after=None)):
                written = await asyncio.to_thread(file.write, lines)
                done = Progress(done.lines + len(lines), done.bytes + written)
                if progress is not None:
                    progress(done)
        return done

    # -- schemas, keys, workers ----------------------------------------------------------

    async def schemas(self, *, templates: bool = False) -> Many[str]:
        """List schema ids: those that hold an entity or a schema, or only those that have a schema."""
        return await self.call(calls.schemas(templates=templates))

    async def schema_counts(self) -> Many[SchemaCount]:
        """Count the entities of each schema id: a walk over all names, for some seconds at the most."""
        return await self.call(calls.schema_counts())

    async def schema_get(self, schema: str) -> bytes:
        """Read a schema, byte for byte. Raises ``NotFound``."""
        return await self.call(calls.schema_get(schema))

    async def schema_put(self, schema: str, value: object) -> SchemaStored:
        """Put a schema in force for every write that begins after the answer. Raises ``Invalid``."""
        return await self.call(calls.schema_put(schema, value))

    async def schema_check(self, schema: str, value: object) -> SchemaStored:
        """Check a schema and change nothing. Raises ``Invalid``."""
        return await self.call(calls.schema_put(schema, value, dry_run=True))

    async def schema_scan(self, schema: str, value: object, *, progress: OnScan | None = None) -> ScanReport:
        """Check a schema and which stored entities it would refuse; ``progress`` gets both counts."""
        return await self._run(scan(schema, value, self._means, progress=progress))

    async def schema_delete(self, schema: str) -> None:
        """Remove a schema; its entities stay. Raises ``NotFound``."""
        await self.call(calls.schema_delete(schema))

    async def keys(self) -> Many[ApiKey]:
        """List the API keys."""
        return await self.call(calls.keys())

    async def key_create(
        self,
        name: str,
        permissions: Sequence[str],
        *,
        expires_in: str | None = None,
        schemas: Sequence[str] | None = None,
        rate_per_s: int | None = None,
    ) -> NewApiKey:
        """Make an API key; its secret is in this answer only.

        Args:
            name: says whose it is.
            permissions: some of ``read``, ``write``, ``admin``.
            expires_in: such as ``24h`` or ``7d``.
            schemas: limits it to schema ids such as ``chat.*``.
            rate_per_s: limits how many requests a second it may send.
        """
        return await self.call(
            calls.key_create(name, permissions, expires_in=expires_in, schemas=schemas, rate_per_s=rate_per_s)
        )

    async def key_delete(self, id: str) -> None:
        """End an API key. Raises ``NotFound``."""
        await self.call(calls.key_delete(id))

    async def workers(self) -> Many[Worker]:
        """List the proc workers."""
        return await self.call(calls.workers())

    # -- input and output --------------------------------------------------------------

    async def _run(self, steps: Steps[T], source: _Source | None = None) -> T:
        performer = _Performer(self._http, self._timeout_s, source)
        reply: Any = None
        try:
            while True:
                try:
                    step = steps.send(reply)
                except StopIteration as stop:
                    return cast(T, stop.value)
                reply = await performer.perform(step)
        finally:
            steps.close()
            await performer.close()

    async def _emitted(self, steps: Steps[None]) -> AsyncGenerator[Any, None]:
        performer = _Performer(self._http, self._timeout_s, None)
        reply: Any = None
        try:
            while True:
                try:
                    step = steps.send(reply)
                except StopIteration:
                    return
                if isinstance(step, Emit):
                    yield step.value
                    reply = None
                else:
                    reply = await performer.perform(step)
        finally:
            steps.close()
            await performer.close()


class _Source:
    """The caller's items. Those of a file are read in a thread, many at once."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], *, blocking: bool) -> None:
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._blocking = blocking
        self._read: Iterator[Any] = iter(())

    async def take(self) -> Any:
        if isinstance(self._items, AsyncIterator):
            return await anext(self._items, END)
        if not self._blocking:
            return next(self._items, END)
        item = next(self._read, END)
        if item is END:
            self._read = iter(await asyncio.to_thread(_some, self._items))
            item = next(self._read, END)
        return item


def _some(items: Iterator[bytes]) -> list[bytes]:
    some: list[bytes] = []
    size = 0
    for item in items:
        some.append(item)
        size += len(item)
        if size > READ_BYTES:
            break
    return some


class _Performer:
    """Does the steps of one call."""

    def __init__(self, http: httpx.AsyncClient, timeout_s: float, source: _Source | None) -> None:
        self._http = http
        self._timeout_s = timeout_s
        self._source = source
        self._answer: httpx.Response | None = None
        self._blocks: AsyncIterator[bytes] | None = None

    async def perform(self, step: Step) -> Any:
        match step:
            case Send(request):
                built = self._http.build_request(**transport.arguments(request, self._timeout_s))
                return await self._send(built)
            case Open(request):
                built = self._http.build_request(**transport.arguments(request, self._timeout_s))
                return await self._send(built, stream=True)
            case Read():
                return await self._read()
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Apply(function, value):
                result = function(value)
                return await result if inspect.isawaitable(result) else result
            case _:
                assert self._source is not None
                return await self._source.take()

    async def close(self) -> None:
        if self._answer is not None:
            await self._answer.aclose()
            self._answer = None

    async def _send(self, request: httpx.Request, *, stream: bool = False) -> Response | Failure:
        await self.close()
        try:
            answer = await self._http.send(request, stream=stream)
            if stream and answer.is_success:
                self._answer, self._blocks = answer, answer.aiter_raw()
                return transport.response_of(answer, b"")
            return transport.response_of(answer, await answer.aread())
        except transport.ERRORS as exc:
            return transport.failure_of(exc)

    async def _read(self) -> bytes | Failure | None:
        assert self._blocks is not None
        try:
            return await anext(self._blocks, None)
        except transport.ERRORS as exc:
            return transport.failure_of(exc)
