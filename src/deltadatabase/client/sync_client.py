"""The client that blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeVar, cast, overload

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
Many = list
"""A list, under a name that no method of the client has."""


class Client:
    """A DeltaDatabase, for programs with threads or without. May be shared by threads.

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
        self._http = httpx.Client(**options.arguments())

    def __repr__(self) -> str:
        return f"Client(url={self._url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, call: Call[T]) -> T:
        """Do one call of ``deltadatabase.client.calls``."""
        return self._run(single(call, self._means))

    def batch(self, asked: Sequence[Call[Any]]) -> Many[Any]:
        """Do calls of ``deltadatabase.client.calls`` in few requests, in order where it matters.

        Gives for each its result, or the ``DeltaError`` that it failed with.
        """
        return self._run(batch(asked, self._means))

    # -- entities ----------------------------------------------------------------------

    @overload
    def get(self, schema: str, key: str) -> Entity[Any]: ...
    @overload
    def get(self, schema: str, key: str, *, as_: type[T], known: Entity[T] | None = None) -> Entity[T]: ...
    @overload
    def get(self, schema: str, key: str, *, known: Entity[T]) -> Entity[T]: ...
    def get(
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
        return self.call(calls.get(schema, key, as_=as_, known=known))

    def head(self, schema: str, key: str) -> Written:
        """Ask for an entity's state without its document. Raises ``NotFound``."""
        return self.call(calls.head(schema, key))

    def put(
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
        return self.call(
            calls.put(
                schema,
                key,
                value,
                if_match=if_match,
                if_none_match=if_none_match,
                idempotency_key=idempotency_key,
            )
        )

    def patch(
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
        return self.call(
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

    def delete(
        self,
        schema: str,
        key: str,
        *,
        if_match: Tags = None,
        if_none_match: Tags = None,
        idempotency_key: str | None = None,
    ) -> Written:
        """Remove an entity. Raises ``NotFound``, and as ``put`` does."""
        return self.call(
            calls.delete(
                schema,
                key,
                if_match=if_match,
                if_none_match=if_none_match,
                idempotency_key=idempotency_key,
            )
        )

    @overload
    def update(
        self,
        schema: str,
        key: str,
        function: Callable[[Any], Any],
        *,
        create: bool = False,
        attempts: int = 100,
    ) -> Entity[Any]: ...
    @overload
    def update(
        self,
        schema: str,
        key: str,
        function: Callable[[T], T],
        *,
        as_: type[T],
        create: Literal[False] = False,
        attempts: int = 100,
    ) -> Entity[T]: ...
    @overload
    def update(
        self,
        schema: str,
        key: str,
        function: Callable[[T | None], T],
        *,
        as_: type[T],
        create: bool,
        attempts: int = 100,
    ) -> Entity[T]: ...
    def update(
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
            as_: type of the value.
            create: an absent entity is made; ``function`` then gets None.
            attempts: how often somebody may be faster before it gives up.

        Raises:
            VersionMismatch: somebody was faster each time.
            NotFound: there is no such entity.
        """
        steps = update(schema, key, function, self._means, as_=as_, create=create, attempts=attempts)
        return self._run(steps)

    # -- lists and changes -------------------------------------------------------------

    @overload
    def list(
        self,
        schema: str,
        *,
        prefix: str = "",
        limit: int | None = None,
        after: str | None = None,
        include: Include | None = None,
    ) -> Page[Any]: ...
    @overload
    def list(
        self,
        schema: str,
        *,
        prefix: str = "",
        limit: int | None = None,
        after: str | None = None,
        include: Include | None = None,
        as_: type[T],
    ) -> Page[T]: ...
    def list(
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
        return self.call(
            calls.list_page(schema, prefix=prefix, limit=limit, after=after, include=include, as_=as_)
        )

    @overload
    def iterate(
        self, schema: str, *, prefix: str = "", include: Include | None = None, page: int = LIST_PAGE
    ) -> Generator[Item[Any], None, None]: ...
    @overload
    def iterate(
        self,
        schema: str,
        *,
        prefix: str = "",
        include: Include | None = None,
        page: int = LIST_PAGE,
        as_: type[T],
    ) -> Generator[Item[T], None, None]: ...
    def iterate(
        self,
        schema: str,
        *,
        prefix: str = "",
        include: Include | None = None,
        page: int = LIST_PAGE,
        as_: type[Any] | Any = Any,
    ) -> Generator[Item[Any], None, None]:
        """List all of a schema's entities, page by page as they are consumed; see ``list``."""
        steps = pages(schema, self._means, prefix=prefix, include=include, limit=page, as_=as_)
        for items in self._emitted(steps):
            yield from items

    @overload
    def changes(
        self, schema: str, *, since: str | None = None, include: Literal["document"] | None = None
    ) -> Generator[Change[Any], None, None]: ...
    @overload
    def changes(
        self, schema: str, *, since: str | None = None, include: Literal["document"], as_: type[T]
    ) -> Generator[Change[T], None, None]: ...
    def changes(
        self,
        schema: str,
        *,
        since: str | None = None,
        include: Literal["document"] | None = None,
        as_: type[Any] | Any = Any,
    ) -> Generator[Change[Any], None, None]:
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
        yield from self._emitted(follow(schema, self._means, since=since, include=include, as_=as_))

    # -- import and export -------------------------------------------------------------

    def import_ndjson(
        self,
        schema: str,
        source: str | Path | BinaryIO | Iterable[bytes | str | tuple[str, object]],
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
                lines, or of pairs of key and document.
            skip_existing: leave entities alone that exist.
            skip_lines: leave out so many lines at the beginning, which an earlier run has done.
            on_error: ``stop`` ends it at the first line that is refused.
            progress: called after each request.

        Raises:
            DeltaError: a request failed for good; a note at the error says how many lines are done.
        """
        with ExitStack() as opened:
            if isinstance(source, (str, Path)):
                source = opened.enter_context(Path(source).open("rb"))
            items: Any = lines_of(cast(BinaryIO, source)) if hasattr(source, "readline") else source
            steps = import_lines(
                schema,
                self._means,
                skip_existing=skip_existing,
                skip_lines=skip_lines,
                on_error=on_error,
                progress=progress,
            )
            return self._run(steps, iter(items))

    def export_lines(
        self, schema: str, *, prefix: str = "", after: str | None = None
    ) -> Generator[bytes, None, None]:
        """Read all documents as lines ``{"key": …, "document": …}``, without their ends.

        A broken stream is taken up again behind its last line.

        Args:
            schema: the schema id.
            prefix: what keys begin with.
            after: begin behind this key.
        """
        for lines in self._emitted(export_lines(schema, self._means, prefix=prefix, after=after)):
            yield from lines

    def export_ndjson(
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
            for lines in self._emitted(export_lines(schema, self._means, prefix=prefix, after=None)):
                done = Progress(done.lines + len(lines), done.bytes + file.write(lines))
                if progress is not None:
                    progress(done)
        return done

    # -- schemas, keys, workers ----------------------------------------------------------

    def schemas(self, *, templates: bool = False) -> Many[str]:
        """List schema ids: those that hold an entity or a schema, or only those that have a schema."""
        return self.call(calls.schemas(templates=templates))

    def schema_counts(self) -> Many[SchemaCount]:
        """Count the entities of each schema id: a walk over all names, for some seconds at the most."""
        return self.call(calls.schema_counts())

    def schema_get(self, schema: str) -> bytes:
        """Read a schema, byte for byte. Raises ``NotFound``."""
        return self.call(calls.schema_get(schema))

    def schema_put(self, schema: str, value: object) -> SchemaStored:
        """Put a schema in force for every write that begins after the answer. Raises ``Invalid``."""
        return self.call(calls.schema_put(schema, value))

    def schema_check(self, schema: str, value: object) -> SchemaStored:
        """Check a schema and change nothing. Raises ``Invalid``."""
        return self.call(calls.schema_put(schema, value, dry_run=True))

    def schema_scan(self, schema: str, value: object, *, progress: OnScan | None = None) -> ScanReport:
        """Check a schema and which stored entities it would refuse; ``progress`` gets both counts."""
        return self._run(scan(schema, value, self._means, progress=progress))

    def schema_delete(self, schema: str) -> None:
        """Remove a schema; its entities stay. Raises ``NotFound``."""
        self.call(calls.schema_delete(schema))

    def keys(self) -> Many[ApiKey]:
        """List the API keys."""
        return self.call(calls.keys())

    def key_create(
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
        return self.call(
            calls.key_create(name, permissions, expires_in=expires_in, schemas=schemas, rate_per_s=rate_per_s)
        )

    def key_delete(self, id: str) -> None:
        """End an API key. Raises ``NotFound``."""
        self.call(calls.key_delete(id))

    def workers(self) -> Many[Worker]:
        """List the proc workers."""
        return self.call(calls.workers())

    # -- input and output --------------------------------------------------------------

    def _run(self, steps: Steps[T], source: Iterator[Any] | None = None) -> T:
        performing = self._performed(steps, source)
        while True:
            try:
                next(performing)
            except StopIteration as stop:
                return cast(T, stop.value)

    def _emitted(self, steps: Steps[None]) -> Generator[Any, None, None]:
        yield from self._performed(steps, None)

    def _performed(self, steps: Steps[T], source: Iterator[Any] | None) -> Generator[Any, None, T]:
        """Do what the steps say; yield what they emit; return their result."""
        performer = _Performer(self._http, self._timeout_s, source)
        reply: Any = None
        try:
            while True:
                try:
                    step = steps.send(reply)
                except StopIteration as stop:
                    return cast(T, stop.value)
                if isinstance(step, Emit):
                    yield step.value
                    reply = None
                else:
                    reply = performer.perform(step)
        finally:
            steps.close()
            performer.close()


class _Performer:
    """Does the steps of one call."""

    def __init__(self, http: httpx.Client, timeout_s: float, source: Iterator[Any] | None) -> None:
        self._http = http
        self._timeout_s = timeout_s
        self._source = source
        self._answer: httpx.Response | None = None
        self._blocks: Iterator[bytes] = iter(())

    def perform(self, step: Step) -> Any:
        match step:
            case Send(request):
                return self._send(self._http.build_request(**transport.arguments(request, self._timeout_s)))
            case Open(request):
                built = self._http.build_request(**transport.arguments(request, self._timeout_s))
                return self._send(built, stream=True)
            case Read():
                return self._read()
            case Sleep(seconds):
                return time.sleep(seconds)
            case Apply(function, value):
                return function(value)
            case _:
                assert self._source is not None
                return next(self._source, END)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _send(self, request: httpx.Request, *, stream: bool = False) -> Response | Failure:
        self.close()
        try:
            answer = self._http.send(request, stream=stream)
            if stream and answer.is_success:
                self._answer, self._blocks = answer, answer.iter_raw()
                return transport.response_of(answer, b"")
            return transport.response_of(answer, answer.read())
        except transport.ERRORS as exc:
            return transport.failure_of(exc)

    def _read(self) -> bytes | Failure | None:
        try:
            return next(self._blocks, None)
        except transport.ERRORS as exc:
            return transport.failure_of(exc)
