"""Model values to protobuf messages and back. The hot path: every request passes here twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from deltadatabase import limits
from deltadatabase.errors import Invalid
from deltadatabase.model import Command, DatabaseInfo, ListedEntity, Op, ProbeCheck, Result, StoreReport
from deltadatabase.rpc import status
from deltadatabase.rpc.pb import main_worker_pb2, proc_worker_pb2, types_pb2

_OPS: Final = {int(op): op for op in Op}
_MAP_ENTRY_BYTES: Final = 16
"""More than the tags and lengths of one entry of a map take."""
_NEED_WRITE_ID: Final = frozenset({Op.PUT, Op.PATCH, Op.DELETE, Op.RESOLVE})


def encode_request(request_id: int, command: Command) -> proc_worker_pb2.Request:
    """Return ``command`` as the request with this id on its stream.

    Raises:
        Invalid: a text is not valid Unicode or a number does not fit its field.
    """
    try:
        # The fields of a GET go through the constructor; what is usually empty is set only if not.
        message = proc_worker_pb2.Request(
            id=request_id,
            op=command.op,  # type: ignore[arg-type]  # the numbers are the same
            schema_id=command.schema_id,
            key=command.key,
            shard=command.shard,
            term=command.term,
            timeout_ms=command.timeout_ms,
            request_id=command.request_id,
        )
        if command.write_id:
            message.write_id = command.write_id
        if command.document:
            message.document = command.document
        if command.if_match is not None:
            message.if_match.CopyFrom(encode_etags(command.if_match))
        if command.if_none_match is not None:
            message.if_none_match.CopyFrom(encode_etags(command.if_none_match))
        if command.revision:
            message.revision = command.revision
        if command.schema_hash:
            message.schema_hash = command.schema_hash
        if command.validated:
            message.validated = True
        if command.number:
            message.number = command.number
        if command.prefix:
            message.prefix = command.prefix
        if command.terms:
            message.terms.extend(command.terms)
        if command.deleted:
            message.deleted = True
        if command.document_bytes_max:
            message.document_bytes_max = command.document_bytes_max
        if command.traceparent:
            message.traceparent = command.traceparent
    except ValueError:
        raise Invalid("the request holds text or numbers that cannot be sent") from None
    return message


def decode_request(message: proc_worker_pb2.Request) -> Command:
    """Return the command that a request carries; of a GET only the fields that a GET has.

    Raises:
        Invalid: the operation is unknown, or the write id is absent or of the wrong length.
    """
    op = _OPS.get(message.op)
    if op is None:
        raise Invalid("unknown operation", code="unknown_op")
    write_id = message.write_id
    if len(write_id) != (limits.WRITE_ID_BYTES if write_id or op in _NEED_WRITE_ID else 0):
        raise Invalid(f"a write id has {limits.WRITE_ID_BYTES} bytes", code="bad_write_id")
    if op is Op.GET:
        # Half of the fields, and half of the time.
        return Command(
            op=op,
            schema_id=message.schema_id,
            key=message.key,
            shard=message.shard,
            term=message.term,
            if_none_match=decode_etags(message.if_none_match) if message.HasField("if_none_match") else None,
            deleted=message.deleted,
            timeout_ms=message.timeout_ms,
            request_id=message.request_id,
            traceparent=message.traceparent,
        )
    return Command(
        op=op,
        schema_id=message.schema_id,
        key=message.key,
        shard=message.shard,
        term=message.term,
        write_id=write_id,
        document=message.document,
        if_match=decode_etags(message.if_match) if message.HasField("if_match") else None,
        if_none_match=decode_etags(message.if_none_match) if message.HasField("if_none_match") else None,
        revision=message.revision,
        schema_hash=message.schema_hash,
        validated=message.validated,
        number=message.number,
        prefix=message.prefix,
        terms=tuple(message.terms),
        deleted=message.deleted,
        document_bytes_max=message.document_bytes_max,
        timeout_ms=message.timeout_ms,
        request_id=message.request_id,
        traceparent=message.traceparent,
    )


def encode_reply(request_id: int, result: Result) -> proc_worker_pb2.Reply:
    """Return ``result`` as the reply to the request with this id."""
    message = proc_worker_pb2.Reply(
        id=request_id,
        version=result.version,
        etag=result.etag,
        updated_ms=result.updated_ms,
        document=result.document,
        schema_hash=result.schema_hash,
    )
    if result.created:
        message.created = True
    if result.not_modified:
        message.not_modified = True
    if result.found:
        message.found = True
    if result.names:
        message.names.extend(result.names)
    if result.number:
        message.number = result.number
    if result.key_id:
        message.key_id = result.key_id
    if result.repeated:
        message.repeated_write = True
    for listed in result.entities:
        message.entities.add(
            name=listed.name,
            size_bytes=listed.size_bytes,
            updated_ms=listed.updated_ms,
            deleted=listed.deleted,
        )
    if result.next:
        message.next = result.next
    if result.queue_us:
        message.queue_us = result.queue_us
    if result.validate_us:
        message.validate_us = result.validate_us
    if result.seal_us:
        message.seal_us = result.seal_us
    if result.store_us:
        message.store_us = result.store_us
    return message


def decode_reply(message: proc_worker_pb2.Reply, op: Op | None = None) -> Result:
    """Return the result that a reply carries; ``op``, what it answers, spares looking at other fields.

    Raises:
        DeltaError: the reply carries an error instead.
    """
    if message.HasField("error"):
        raise status.decode_error(message.error)
    if op is Op.GET:
        return Result(
            version=message.version,
            etag=message.etag,
            updated_ms=message.updated_ms,
            document=message.document,
            not_modified=message.not_modified,
            queue_us=message.queue_us,
            store_us=message.store_us,
        )
    return Result(
        version=message.version,
        etag=message.etag,
        updated_ms=message.updated_ms,
        document=message.document,
        created=message.created,
        not_modified=message.not_modified,
        found=message.found,
        schema_hash=message.schema_hash,
        names=tuple(message.names),
        number=message.number,
        key_id=message.key_id,
        repeated=message.repeated_write,
        entities=tuple(
            ListedEntity(listed.name, listed.size_bytes, listed.updated_ms, listed.deleted)
            for listed in message.entities
        ),
        next=message.next,
        queue_us=message.queue_us,
        validate_us=message.validate_us,
        seal_us=message.seal_us,
        store_us=message.store_us,
    )


def encode_etags(etags: Iterable[str]) -> types_pb2.ETags:
    """Return the ETags of one condition."""
    return types_pb2.ETags(etag=etags)


def decode_etags(message: types_pb2.ETags) -> tuple[str, ...]:
    """Return the ETags of one condition."""
    return tuple(message.etag)


def encode_store_report(report: StoreReport) -> types_pb2.StoreReport:
    """Return what a worker's probe found, as it tells the main worker."""
    database = report.database
    return types_pb2.StoreReport(
        backend=report.backend,
        checks=[
            types_pb2.ProbeCheck(name=check.name, passed=check.passed, detail=check.detail)
            for check in report.checks
        ],
        database=types_pb2.DatabaseInfo(
            database_id=database.database_id,
            format=database.format,
            shards=database.shards,
            highest_epoch=database.highest_epoch,
            keys=database.keys,
            retired_keys=database.retired_keys,
        ),
        templates=report.templates,
    )


def decode_store_report(message: types_pb2.StoreReport) -> StoreReport:
    """Return what a worker's probe found."""
    database = message.database
    return StoreReport(
        backend=message.backend,
        checks=tuple(ProbeCheck(check.name, check.passed, check.detail) for check in message.checks),
        database=DatabaseInfo(
            database_id=database.database_id,
            format=database.format,
            shards=database.shards,
            highest_epoch=database.highest_epoch,
            keys=dict(database.keys),
            retired_keys=tuple(database.retired_keys),
        ),
        templates=message.templates,
    )


def encode_templates(etags: Mapping[str, str]) -> Iterator[main_worker_pb2.TemplateSnapshot]:
    """Split a snapshot of all templates into messages that the control plane takes, at least one."""
    part: dict[str, str] = {}
    size = 0
    for schema_id, etag in etags.items():
        if size > limits.TEMPLATES_MESSAGE_BYTES_MAX:
            yield main_worker_pb2.TemplateSnapshot(etags=part, more=True)
            part, size = {}, 0
        part[schema_id] = etag
        size += len(schema_id.encode()) + len(etag.encode()) + _MAP_ENTRY_BYTES
    yield main_worker_pb2.TemplateSnapshot(etags=part)
