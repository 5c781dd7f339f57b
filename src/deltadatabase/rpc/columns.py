"""Plain reads and their documents as columns of a batch, at a third of the cost of a message for each.

The usual read goes this way: a GET without a condition, answered from the worker's cache. All else
is a ``Request`` and a ``Reply`` (``convert``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from deltadatabase.errors import Invalid
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc.pb.proc_worker_pb2 import Documents, Reads

ReadRow = tuple[int, bytes, bytes, int, int, int, bytes]
"""Id, schema id, key, shard, term, milliseconds left, and request id of one read."""
DocumentRow = tuple[int, int, str, int, bytes]
"""Id, version, ETag, commit time and document that answer one."""

ROW_BYTES: Final = 64
"""More than the numbers, tags and lengths of a row take."""
_UINT32: Final = 1 << 32
_UINT64: Final = 1 << 64


def read_row(request_id: int, command: Command) -> ReadRow | None:
    """Return a command as a row; None if it is no plain read, or one that cannot be sent at all."""
    if (
        command.op is not Op.GET
        or command.if_none_match is not None
        or command.deleted
        or command.traceparent
        or not 0 <= command.shard < _UINT32
        or not 0 <= command.term < _UINT64
        or not 0 <= command.timeout_ms < _UINT32
    ):
        return None
    try:
        return (
            request_id,
            command.schema_id.encode(),
            command.key.encode(),
            command.shard,
            command.term,
            command.timeout_ms,
            command.request_id.encode(),
        )
    except UnicodeEncodeError:
        return None


def read_bytes(row: ReadRow) -> int:
    """At least as many bytes as the row takes in a message."""
    return len(row[1]) + len(row[2]) + len(row[6]) + ROW_BYTES


def pack_reads(rows: Sequence[ReadRow]) -> Reads:
    """Return rows, at least one, as columns."""
    ids, schema_ids, keys, shards, terms, timeouts, request_ids = zip(*rows, strict=True)
    return Reads(
        id=ids,
        schema_id=schema_ids,
        key=keys,
        shard=shards,
        term=terms,
        timeout_ms=timeouts,
        request_id=request_ids,
    )


def unpack_reads(reads: Reads) -> list[ReadRow]:
    """Return the rows. Raises DecodeError: the columns do not fit together."""
    try:
        return list(
            zip(
                reads.id,
                reads.schema_id,
                reads.key,
                reads.shard,
                reads.term,
                reads.timeout_ms,
                reads.request_id,
                strict=True,
            )
        )
    except ValueError:
        raise DecodeError("the columns differ in length") from None


def read_command(row: ReadRow) -> Command:
    """Return the command of a row. Raises Invalid."""
    _, schema_id, key, shard, term, timeout_ms, request_id = row
    try:
        return Command(
            op=Op.GET,
            schema_id=schema_id.decode(),
            key=key.decode(),
            shard=shard,
            term=term,
            timeout_ms=timeout_ms,
            request_id=request_id.decode(),
        )
    except UnicodeDecodeError:
        raise Invalid("the request cannot be decoded") from None


def document_row(request_id: int, result: Result) -> DocumentRow | None:
    """Return what a read found as a row; None if it says more than what a cached document does."""
    if result.not_modified or result.queue_us or result.store_us:
        return None
    return request_id, result.version, result.etag, result.updated_ms, result.document


def document_bytes(row: DocumentRow) -> int:
    """At least as many bytes as the row takes in a message."""
    return len(row[2]) + len(row[4]) + ROW_BYTES


def pack_documents(rows: Sequence[DocumentRow]) -> Documents:
    """Return rows, at least one, as columns."""
    ids, versions, etags, updated, documents = zip(*rows, strict=True)
    return Documents(id=ids, version=versions, etag=etags, updated_ms=updated, document=documents)


def unpack_documents(documents: Documents) -> list[tuple[int, Result]]:
    """Return each id and what it is answered. Raises DecodeError: the columns do not fit together."""
    try:
        return [
            (request_id, Result(version=version, etag=etag, updated_ms=updated_ms, document=document))
            for request_id, version, etag, updated_ms, document in zip(
                documents.id,
                documents.version,
                documents.etag,
                documents.updated_ms,
                documents.document,
                strict=True,
            )
        ]
    except ValueError:
        raise DecodeError("the columns differ in length") from None
