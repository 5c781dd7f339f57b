"""Writes with an ``Idempotency-Key``: applied once, however often they are sent.

Two memories work together. The write id is derived from the key, so the entity's own stored history
recognises a repeat; and a table (``used_keys``) tells a first use from a repeat that the history has
forgotten. See docs/decisions/0037.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final, TypeVar, final

import msgspec

from deltadatabase.auth.policy import Principal
from deltadatabase.clock import Clock
from deltadatabase.errors import (
    Conflict,
    DeltaError,
    Internal,
    LinkLost,
    NotFound,
    OutcomeUnknown,
    PartlyApplied,
    Unavailable,
    Unprocessable,
    VersionMismatch,
)
from deltadatabase.gateway.conditions import ANY, NO_CONDITIONS, Conditions
from deltadatabase.gateway.ports import Entities
from deltadatabase.gateway.used_keys import Outcome, Use, UsedKeys
from deltadatabase.limits import (
    IDEMPOTENCY_SURE_S,
    IDEMPOTENCY_TRIES_MAX,
    REQUEST_TIMEOUT_MS,
    TOMBSTONE_OFFLINE_AGE_S,
    WRITE_ID_BYTES,
)
from deltadatabase.model import Result
from deltadatabase.telemetry.logging import get_logger

_HALF: Final = WRITE_ID_BYTES // 2
_PERSON: Final = b"deltadb idem key"
_ERA_MS: Final = int(TOMBSTONE_OFFLINE_AGE_S * 1000)
"""An entity's versions begin again no sooner than this after a write: then its write id differs, too."""
REPLAYED: Final = (b"idempotent-replayed", b"true")
"""Header of an answer that tells what an earlier request did."""

_OPEN: Final = frozenset(error.default_code for error in (Internal, LinkLost, OutcomeUnknown))
"""Codes of errors that leave it open whether a write was applied."""

_log = get_logger(__name__)

T = TypeVar("T")
Send = Callable[[bytes, Conditions], Awaitable[Result]]
"""Sends the write under this write id and these conditions."""


class KeyedWrite(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entity's write that a client has named.

    Attributes:
        name: digest of who asks, the idempotency key and the entity.
        content: digest of what is asked for.
        schema_id, key: the entity.
        conditions: under which it is to be written.
        method: ``PUT``, ``PATCH`` or ``DELETE``.
    """

    name: bytes
    content: bytes
    schema_id: str
    key: str
    conditions: Conditions
    method: str

    def write_id(self, now_ms: int) -> bytes:
        """The write id of a first use now.

        Its first half, of which ETags are made, is another one in each era: the same name may be used
        again for an entity whose versions have begun again, and its ETags must not repeat.
        """
        return _digest(_HALF, self.name, b"%d" % (now_ms // _ERA_MS)) + self.content


def keyed_write(
    principal: Principal,
    idempotency_key: bytes,
    method: str,
    schema_id: str,
    key: str,
    payload: bytes = b"",
    *,
    kind: int = 0,
    conditions: Conditions = NO_CONDITIONS,
) -> KeyedWrite:
    """Name a write.

    Args:
        principal: who asks. Names of API keys are not unique, so their ids count as well.
        idempotency_key: chosen by the client.
        method: ``PUT``, ``PATCH`` or ``DELETE``.
        schema_id: of the entity.
        key: of the entity.
        payload: document or patch, byte for byte.
        kind: how a patch is to be read.
        conditions: of the request.
    """
    tags = msgspec.json.encode((conditions.if_match, conditions.if_none_match))
    return KeyedWrite(
        name=_digest(
            2 * _HALF,
            principal.key_id.encode(),
            principal.client_id.encode(),
            idempotency_key,
            schema_id.encode(),
            key.encode(),
        ),
        content=_digest(_HALF, method.encode(), b"%d" % kind, tags, payload),
        schema_id=schema_id,
        key=key,
        conditions=conditions,
        method=method,
    )


def _digest(size: int, *parts: bytes) -> bytes:
    digest = blake2b(digest_size=size, person=_PERSON)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


@final
class IdempotentWrites:
    """Performs named writes.

    Args:
        entities: where documents are.
        used: the keys in use.
        clock: wall time.
    """

    def __init__(self, entities: Entities, used: UsedKeys, *, clock: Clock) -> None:
        self._entities = entities
        self._used = used
        self._clock = clock
        self._under_way: dict[bytes, asyncio.Future[None]] = {}

    async def write(self, write: KeyedWrite, send: Send) -> Result:
        """Perform a write, or tell what it did: ``Result.repeated``.

        Raises:
            Unprocessable: ``idempotency_key_reused``: the key names another write.
            Conflict: ``idempotency_key_in_use``: its first request is not answered yet;
                ``idempotency_key_forgotten``: nobody knows any more whether that was applied.
            DeltaError: of the write.
        """
        with self._own(await self._free([write])):
            return await self._once(write, send)

    async def put_all(
        self, writes: Sequence[KeyedWrite], documents: Mapping[str, bytes], *, request_id: str = ""
    ) -> dict[str, Result]:
        """Put several entities, each a write of its own; what was put before is left alone.

        Raises:
            DeltaError: as ``write``, and as ``Entities.put``.
        """
        with self._own(await self._free(writes)):
            now_ms = self._clock.wall_ms()
            fresh: dict[str, tuple[KeyedWrite, Use]] = {}
            known: list[tuple[KeyedWrite, Use]] = []
            for write in writes:
                use = self._found(write, now_ms)
                if use is None:
                    fresh[write.key] = (write, Use(write.write_id(now_ms), now_ms, 0))
                else:
                    known.append((write, use))
            if not known and len(fresh) > 1:
                return await self._put_fresh(fresh, documents, request_id)
            if len(writes) == 1:
                (write,) = writes
                return {
                    write.key: await self._once(write, self._putting(write, documents[write.key], request_id))
                }
            outcomes: dict[str, Result | DeltaError] = {}
            for write, use in known:
                try:
                    outcomes[write.key] = await self._repeated(
                        write, use, self._putting(write, documents[write.key], request_id)
                    )
                except DeltaError as exc:
                    outcomes[write.key] = exc
            if fresh:
                try:
                    outcomes.update(await self._put_fresh(fresh, documents, request_id))
                except DeltaError as exc:
                    outcomes.update(dict.fromkeys(fresh, exc))
            return _all_of(documents, outcomes)

    def _putting(self, write: KeyedWrite, document: bytes, request_id: str) -> Send:
        """How one document is put."""

        def send(write_id: bytes, conditions: Conditions) -> Awaitable[Result]:
            return self._entities.put_one(
                write.schema_id,
                write.key,
                document,
                if_match=conditions.if_match,
                if_none_match=conditions.if_none_match,
                write_id=write_id,
                request_id=request_id,
            )

        return send

    # -- one request at a time for a name ------------------------------------------------

    async def _free(self, writes: Sequence[KeyedWrite]) -> list[bytes]:
        """Wait until none of the names is under way; their repeats then find what became of them."""
        names = [write.name for write in writes]
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                while running := [self._under_way[name] for name in names if name in self._under_way]:
                    await asyncio.wait(running)
        except TimeoutError:
            raise Conflict(
                "the first request with this Idempotency-Key is not answered yet",
                code="idempotency_key_in_use",
                retry_after_s=1.0,
            ) from None
        return names

    @contextmanager
    def _own(self, names: list[bytes]) -> Iterator[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.update(dict.fromkeys(names, done))
        try:
            yield
        finally:
            for name in names:
                del self._under_way[name]
            done.set_result(None)

    # -- what a name stands for ------------------------------------------------------------

    async def _once(self, write: KeyedWrite, send: Send) -> Result:
        use = self._found(write, self._clock.wall_ms())
        return await (self._first(write, send) if use is None else self._repeated(write, use, send))

    async def _repeated(self, write: KeyedWrite, use: Use, send: Send) -> Result:
        return await self._again(write, use, send) if use.outcome is None else _replay(use.outcome)

    def _found(self, write: KeyedWrite, now_ms: int) -> Use | None:
        use = self._used.find(write.name, now_ms)
        if use is not None and use.write_id[_HALF:] != write.content:
            raise Unprocessable(
                "this Idempotency-Key was used for another request on this entity",
                code="idempotency_key_reused",
            )
        return use

    async def _first(self, write: KeyedWrite, send: Send) -> Result:
        # What is seen now tells a repeat how far back the history must reach.
        present = await self._present(write)
        now_ms = self._clock.wall_ms()
        use = Use(write.write_id(now_ms), now_ms, present.version)
        self._used.begin([(write.name, use)], now_ms)
        try:
            result = await send(use.write_id, write.conditions)
        except DeltaError as exc:
            if exc.certain:
                self._note(self._used.forget, [write.name])
            raise
        if _changed(write, result):
            return self._done(write, result)
        self._note(self._used.forget, [write.name])
        return result

    async def _again(self, write: KeyedWrite, use: Use, send: Send) -> Result:
        """Find out what became of a write of unknown outcome, and apply it if that is certain: nothing.

        Its use is never freed, whatever this attempt is refused for: the first may land yet, as long
        as the entity is what it was then.
        """
        for _ in range(IDEMPOTENCY_TRIES_MAX):
            present = await self._present(write)
            looked = await self._entities.resolve(write.schema_id, write.key, use.write_id)
            if looked.found:
                return self._done(write, msgspec.structs.replace(looked, repeated=True))
            if not self._certainly_not_applied(use, looked, present):
                raise Conflict(
                    "too much was written to this entity since the first request with this Idempotency-Key "
                    "to tell whether that was applied; read the entity, then write with a new key",
                    code="idempotency_key_forgotten",
                )
            if not write.conditions.hold(present.etag):
                raise VersionMismatch(
                    "entity is not in a version that the request's conditions name",
                    etag=present.etag or None,
                )
            # On nothing but what was just looked at.
            guard = Conditions(if_match=(present.etag,)) if present.etag else Conditions(if_none_match=ANY)
            try:
                result = await send(use.write_id, guard)
            except VersionMismatch:
                continue
            return self._done(write, result) if _changed(write, result) else result
        raise Unavailable("others keep changing this entity", code="contended")

    def _certainly_not_applied(self, use: Use, looked: Result, present: Result) -> bool:
        """Whether the history that was looked through reaches back to before the first attempt."""
        if not 0 <= self._clock.wall_ms() - use.begun_ms < IDEMPOTENCY_SURE_S * 1000:
            return False  # It may have been deleted since, and begun again.
        if looked.version < max(present.version, use.seen):
            return False  # A worker that doesn't tell how far it looked.
        return looked.number <= use.seen + 1

    async def _present(self, write: KeyedWrite) -> Result:
        """Version and ETag of the entity now, without its document; no ETag where there is none.

        A deleted one's version counts: without it nothing would tell how far its history must reach.
        """
        try:
            return await self._entities.state(write.schema_id, write.key)
        except NotFound:
            return Result()

    async def _put_fresh(
        self, fresh: Mapping[str, tuple[KeyedWrite, Use]], documents: Mapping[str, bytes], request_id: str
    ) -> dict[str, Result]:
        names = {key: write.name for key, (write, _) in fresh.items()}
        first, use = next(iter(fresh.values()))
        self._used.begin(((write.name, use) for write, use in fresh.values()), use.begun_ms)
        try:
            results = await self._entities.put(
                first.schema_id,
                {key: documents[key] for key in fresh},
                write_ids={key: use.write_id for key, (_, use) in fresh.items()},
                request_id=request_id,
            )
        except PartlyApplied as exc:
            certain = [
                names[key]
                for key, what in exc.outcomes.items()
                if isinstance(what, str) and what not in _OPEN
            ]
            self._note(self._used.forget, certain)
            raise
        except DeltaError as exc:
            if exc.certain:
                self._note(self._used.forget, list(names.values()))
            raise
        outcomes = [(names[key], _outcome(fresh[key][0], result)) for key, result in results.items()]
        self._note(self._used.complete, outcomes)
        return results

    def _done(self, write: KeyedWrite, result: Result) -> Result:
        """Note what a write did, and tell it as at the first time."""
        outcome = _outcome(write, result)
        self._note(self._used.complete, [(write.name, outcome)])
        return msgspec.structs.replace(result, etag=outcome.etag, created=outcome.created)

    def _note(self, note: Callable[[list[T]], None], what: list[T]) -> None:
        """Note what has happened. If that fails, a repeat looks into the entity's history instead."""
        try:
            note(what)
        except DeltaError as exc:
            _log.warning("the outcome of a write with an Idempotency-Key was not kept", code=exc.code)


def _changed(write: KeyedWrite, result: Result) -> bool:
    """Whether a write changed something: all but a delete of nothing."""
    return result.found or write.method != "DELETE"


def _outcome(write: KeyedWrite, result: Result) -> Outcome:
    # A repeat that the entity's history told of does not say whether there was an entity before.
    created = write.method == "PUT" and (
        result.created or result.version == 1 or (result.repeated and write.conditions.if_none_match == ANY)
    )
    etag = "" if write.method == "DELETE" else result.etag
    return Outcome(result.version, etag, result.updated_ms, created)


def _replay(outcome: Outcome) -> Result:
    return Result(
        version=outcome.version,
        etag=outcome.etag,
        updated_ms=outcome.updated_ms,
        created=outcome.created,
        found=True,
        repeated=True,
    )


def _all_of(documents: Mapping[str, bytes], outcomes: Mapping[str, Result | DeltaError]) -> dict[str, Result]:
    """The results in the order of the documents. Raises PartlyApplied unless there are only such."""
    told: dict[str, int | str] = {}
    causes: list[DeltaError] = []
    for key in documents:
        outcome = outcomes[key]
        if isinstance(outcome, PartlyApplied):
            told[key] = outcome.outcomes[key]
            causes.append(outcome.cause)
        elif isinstance(outcome, DeltaError):
            told[key] = outcome.code
            causes.append(outcome)
        else:
            told[key] = outcome.version
    if causes:
        cause = next((error for error in causes if not error.certain), causes[0])
        raise PartlyApplied("some of the entities were not stored", outcomes=told, cause=cause)
    return {key: outcome for key in documents if isinstance(outcome := outcomes[key], Result)}
