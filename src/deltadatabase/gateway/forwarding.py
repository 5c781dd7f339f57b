"""The router: what the REST and gRPC sides ask of the workers, each request sent to its owner.

The protocol is ARCHITECTURE section 3: ``moves`` knows the owners, ``sending`` carries commands.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from deltadatabase.clock import Clock, Random
from deltadatabase.errors import (
    Conflict,
    DeltaError,
    Invalid,
    Issue,
    NotOwner,
    PartlyApplied,
    PreconditionRequired,
)
from deltadatabase.gateway.listings import Listings
from deltadatabase.gateway.sending import Sending, gather
from deltadatabase.limits import (
    BATCH_ISSUES_MAX,
    DOCUMENT_BYTES_MAX_DEFAULT,
    MOVE_HOLD_S,
    REQUEST_TIMEOUT_MS,
    SCHEMA_ROUNDS_MAX,
    WRITE_ID_BYTES,
)
from deltadatabase.model import Command, Op, PatchKind, Result
from deltadatabase.placement.ring import shard_of


class Router(Sending, Listings):
    """Routes commands over the joined workers.

    Args:
        clock: monotonic time for deadlines.
        random: write ids.
        timeout_ms: time for one request of a client.
        document_bytes_max: what a PATCH may make of a document.
        move_hold_s: for how long requests wait at the most while their shard moves.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        random: Random,
        timeout_ms: int = REQUEST_TIMEOUT_MS,
        document_bytes_max: int = DOCUMENT_BYTES_MAX_DEFAULT,
        move_hold_s: float = MOVE_HOLD_S,
    ) -> None:
        super().__init__(clock=clock, timeout_ms=timeout_ms, move_hold_s=move_hold_s)
        self._random = random
        self._document_bytes_max = document_bytes_max

    # -- entities ----------------------------------------------------------------------

    def cached(self, schema_id: str, key: str, *, request_id: str = "") -> Result | None:
        """Read one entity whose owner has it at hand in this process; None: ask ``get``.

        Nothing is waited for, so the term under which it is asked is still the shard's when it
        answers. Raises NotFound.
        """
        placement = self._placement
        if not self._any_local or placement is None or self._closures:
            return None
        shard = shard_of(schema_id, key, placement.shards)
        owner = placement.owners[shard]
        if owner is None or shard in self._held or not self._links[owner].local:
            return None
        command = Command(
            op=Op.GET,
            schema_id=schema_id,
            key=key,
            shard=shard,
            term=placement.terms[shard],
            request_id=request_id,
        )
        try:
            return self._links[owner].cached(command)
        except NotOwner:
            return None

    async def get(
        self,
        schema_id: str,
        key: str,
        *,
        if_none_match: tuple[str, ...] | None = None,
        request_id: str = "",
    ) -> Result:
        """Read one entity. Raises NotFound, Unavailable, Corrupt."""
        command = Command(
            op=Op.GET, schema_id=schema_id, key=key, if_none_match=if_none_match, request_id=request_id
        )
        return await self._read(command)

    async def state(
        self, schema_id: str, key: str, *, with_document: bool = False, fresh: bool = False
    ) -> Result:
        """Read an entity or its tombstone, whose ``etag`` is "".

        Args:
            schema_id: of the entity.
            key: of the entity.
            with_document: bring its document along.
            fresh: do not trust what its owner remembers.

        Raises:
            NotFound: there is neither.
            Unavailable, Corrupt: as for ``get``.
        """
        if fresh:
            await self.resolve(schema_id, key, bytes(WRITE_ID_BYTES))
        unwanted = None if with_document else ("*",)
        return await self._read(
            Command(op=Op.GET, schema_id=schema_id, key=key, if_none_match=unwanted, deleted=True)
        )

    async def put(
        self,
        schema_id: str,
        documents: Mapping[str, bytes],
        *,
        write_ids: Mapping[str, bytes] | None = None,
        request_id: str = "",
    ) -> dict[str, Result]:
        """Write entities; all are validated, under one version of the schema, before any is stored.

        Raises:
            Invalid: a document is refused; nothing was stored.
            PartlyApplied: the store failed part-way; tells the outcome of each key.
        """
        named = write_ids or {}
        if len(documents) == 1:
            ((key, document),) = documents.items()
            return {
                key: await self.put_one(
                    schema_id, key, document, write_id=named.get(key), request_id=request_id
                )
            }
        commands = [
            self._write_command(
                Op.PUT, schema_id, key, document=document, write_id=named.get(key), request_id=request_id
            )
            for key, document in documents.items()
        ]
        pinned = await self._validate_all(commands)
        outcomes = await gather(
            [
                self._write(msgspec.structs.replace(command, validated=True, schema_hash=pinned))
                for command in commands
            ]
        )
        failed = [outcome for outcome in outcomes if isinstance(outcome, DeltaError)]
        if failed and len(failed) == len(outcomes) and all(error.certain for error in failed):
            raise failed[0]
        if failed:
            cause = next((error for error in failed if not error.certain), failed[0])
            raise PartlyApplied(
                "some of the entities were not stored",
                outcomes={
                    command.key: outcome.version if isinstance(outcome, Result) else outcome.code
                    for command, outcome in zip(commands, outcomes, strict=True)
                },
                cause=cause,
            )
        return {
            command.key: outcome
            for command, outcome in zip(commands, outcomes, strict=True)
            if isinstance(outcome, Result)
        }

    async def put_one(
        self,
        schema_id: str,
        key: str,
        document: bytes,
        *,
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Result:
        """Write one entity, under conditions if any are given.

        Args:
            schema_id: of the entity.
            key: of the entity.
            document: what to write.
            if_match: ETags one of which must be current.
            if_none_match: ETags none of which may be current.
            write_id: names the write, so that its repeat is recognised; None: a new name.
            request_id: for logs.

        Raises:
            Invalid: the schema refuses the document.
            VersionMismatch: a condition fails.
            OutcomeUnknown: it may have been stored.
        """
        return await self._write(
            self._write_command(
                Op.PUT,
                schema_id,
                key,
                document=document,
                if_match=if_match,
                if_none_match=if_none_match,
                write_id=write_id,
                request_id=request_id,
            )
        )

    async def patch(
        self,
        schema_id: str,
        key: str,
        patch: bytes,
        kind: PatchKind,
        *,
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Result:
        """Change one entity's document by a patch.

        Returns:
            Version, ETag and the patched document; b"" when the write was found to have been applied
            earlier and the entity was written since.

        Raises:
            NotFound: there is no such entity.
            Invalid: ``bad_patch``, or the schema refuses the patched document.
            Conflict: ``patch_conflict`` or ``patch_test_failed``.
            DeltaError: like ``put_one``.
        """
        command = self._write_command(
            Op.PATCH,
            schema_id,
            key,
            document=patch,
            if_match=if_match,
            if_none_match=if_none_match,
            write_id=write_id,
            request_id=request_id,
        )
        return await self._write(
            msgspec.structs.replace(command, number=int(kind), document_bytes_max=self._document_bytes_max)
        )

    async def delete(
        self,
        schema_id: str,
        key: str,
        *,
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Result:
        """Delete one entity; ``found`` tells whether there was one. Raises like ``put_one``."""
        return await self._write(
            self._write_command(
                Op.DELETE,
                schema_id,
                key,
                if_match=if_match,
                if_none_match=if_none_match,
                write_id=write_id,
                request_id=request_id,
            )
        )

    async def resolve(self, schema_id: str, key: str, write_id: bytes, *, request_id: str = "") -> Result:
        """Find out, in a fresh store read, whether a write was applied; see ``gateway.ports``."""
        return await self._read(
            Command(op=Op.RESOLVE, schema_id=schema_id, key=key, write_id=write_id, request_id=request_id)
        )

    def _write_command(
        self,
        op: Op,
        schema_id: str,
        key: str,
        *,
        document: bytes = b"",
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Command:
        return Command(
            op=op,
            schema_id=schema_id,
            key=key,
            document=document,
            write_id=write_id or self._random(WRITE_ID_BYTES),
            if_match=if_match,
            if_none_match=if_none_match,
            revision=self.revisions.revision(schema_id),
            request_id=request_id,
        )

    async def _validate_all(self, commands: list[Command]) -> str:
        """Check all documents under one schema version and return its hash."""
        for _ in range(SCHEMA_ROUNDS_MAX):
            revision = self.revisions.revision(commands[0].schema_id)
            outcomes = await gather(
                [
                    self._read(
                        msgspec.structs.replace(command, op=Op.VALIDATE, write_id=b"", revision=revision)
                    )
                    for command in commands
                ]
            )
            _raise_refusals(commands, outcomes)
            hashes = {outcome.schema_hash for outcome in outcomes if isinstance(outcome, Result)}
            if len(hashes) == 1:
                return hashes.pop()
        raise Conflict("schema kept changing while documents were being checked", code="schema_changed")

    # -- schemas -----------------------------------------------------------------------

    async def schema_get(self, schema_id: str) -> Result:
        """Read a schema as stored. Raises NotFound."""
        return await self.any_worker(Command(op=Op.SCHEMA_GET, schema_id=schema_id))

    async def schema_put(self, schema_id: str, document: bytes) -> Result:
        """Store a schema; it holds for every write that begins after this returns.

        Raises:
            Invalid: not a schema that is served here.
        """
        return await self._change_schema(Command(op=Op.SCHEMA_PUT, schema_id=schema_id, document=document))

    async def schema_delete(self, schema_id: str) -> Result:
        """Remove a schema. Raises NotFound."""
        return await self._change_schema(Command(op=Op.SCHEMA_DELETE, schema_id=schema_id))

    async def schema_list(self) -> tuple[str, ...]:
        """Return the ids of all schemas, ascending."""
        return (await self.any_worker(Command(op=Op.SCHEMA_LIST))).names

    async def namespaces(self) -> tuple[str, ...]:
        """Return every schema id that holds an entity or has a schema, ascending."""
        return (await self.any_worker(Command(op=Op.NAMESPACES))).names

    async def _change_schema(self, command: Command) -> Result:
        # Raised after the store has the change and before the answer leaves, also where the
        # answer is lost: whoever validates under the new revision fetches afterwards.
        try:
            result = await self.any_worker(command)
        except DeltaError as exc:
            if not exc.certain:
                self.revisions.raise_for([command.schema_id])
            raise
        self.revisions.raise_for([command.schema_id])
        return result

    # -- master keys -------------------------------------------------------------------

    async def object_names(self, after: str) -> tuple[str, ...]:
        """One page of object names below ``files/``, those after ``after``; empty at the end."""
        return (await self.any_worker(Command(op=Op.OBJECT_NAMES, key=after))).names

    async def retire_key(self, key_id: str) -> bool:
        """Note that a master key (id in hex) seals nothing any more; False: the database does not know it."""
        return (await self.any_worker(Command(op=Op.RETIRE_KEY, key=key_id))).found

    async def key_of(self, schema_id: str, key: str) -> Result:
        """Find out which master key seals an entity or its tombstone: ``found`` and ``key_id``."""
        return await self._read(Command(op=Op.KEY_OF, schema_id=schema_id, key=key))

    async def reseal(self, schema_id: str, key: str, key_id: bytes) -> Result:
        """Have an entity or its tombstone sealed anew with the primary master key, whose id is given.

        Repeating it changes nothing, so it is sent again whatever became of it before.

        Raises:
            Unavailable: ``key_unavailable``: its owner has another primary key, or cannot open it.
            Corrupt: it fails its integrity check.
        """
        return await self._read(Command(op=Op.RESEAL, schema_id=schema_id, key=key, document=key_id))


def _raise_refusals(commands: list[Command], outcomes: list[Result | DeltaError]) -> None:
    """Raise what is wrong with the documents, naming each, or else the first other error."""
    failed = [
        (command.key, outcome)
        for command, outcome in zip(commands, outcomes, strict=True)
        if isinstance(outcome, DeltaError)
    ]
    for _, error in failed:
        if isinstance(error, PreconditionRequired):
            raise error  # Of the schema, not of one document.
    refused = [(key, error) for key, error in failed if isinstance(error, Invalid)]
    if refused:
        issues = [
            msgspec.structs.replace(issue, key=key)
            for key, error in refused
            for issue in (error.issues or (Issue("", "", error.detail),))
        ]
        raise Invalid(
            f"{len(refused)} of {len(commands)} documents are refused; nothing was stored",
            code=refused[0][1].code,
            issues=tuple(issues[:BATCH_ISSUES_MAX]),
        )
    if failed:
        raise failed[0][1]
