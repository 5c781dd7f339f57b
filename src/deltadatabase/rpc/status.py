"""The error tree as protobuf ``Error`` and as gRPC status; one of its two mappings to the outside.

``gateway/problem.py`` holds the other one.
"""

from __future__ import annotations

from typing import Final

import grpc

from deltadatabase import errors
from deltadatabase.errors import DeltaError, Issue
from deltadatabase.rpc.pb import types_pb2 as pb

#: The kind on the wire and the status of a unary call, for every class of the tree but the
#: two that never leave a worker (``StartupError``) or are made after it (``PartlyApplied``).
MAPPING: Final[dict[type[DeltaError], tuple[pb.ErrorKind, grpc.StatusCode]]] = {
    errors.Invalid: (pb.ERROR_KIND_INVALID, grpc.StatusCode.INVALID_ARGUMENT),
    errors.TooLarge: (pb.ERROR_KIND_TOO_LARGE, grpc.StatusCode.INVALID_ARGUMENT),
    # Only HTTP tells these three from Invalid; over gRPC their code alone does.
    errors.UnsupportedMediaType: (pb.ERROR_KIND_INVALID, grpc.StatusCode.INVALID_ARGUMENT),
    errors.MethodNotAllowed: (pb.ERROR_KIND_INVALID, grpc.StatusCode.INVALID_ARGUMENT),
    errors.RequestTimeout: (pb.ERROR_KIND_INVALID, grpc.StatusCode.INVALID_ARGUMENT),
    errors.Unauthenticated: (pb.ERROR_KIND_UNAUTHENTICATED, grpc.StatusCode.UNAUTHENTICATED),
    errors.Denied: (pb.ERROR_KIND_DENIED, grpc.StatusCode.PERMISSION_DENIED),
    errors.NotFound: (pb.ERROR_KIND_NOT_FOUND, grpc.StatusCode.NOT_FOUND),
    errors.Unprocessable: (pb.ERROR_KIND_UNPROCESSABLE, grpc.StatusCode.FAILED_PRECONDITION),
    errors.PreconditionRequired: (pb.ERROR_KIND_PRECONDITION_REQUIRED, grpc.StatusCode.FAILED_PRECONDITION),
    errors.Gone: (pb.ERROR_KIND_GONE, grpc.StatusCode.FAILED_PRECONDITION),
    errors.Conflict: (pb.ERROR_KIND_CONFLICT, grpc.StatusCode.FAILED_PRECONDITION),
    errors.AlreadyExists: (pb.ERROR_KIND_ALREADY_EXISTS, grpc.StatusCode.ALREADY_EXISTS),
    errors.VersionMismatch: (pb.ERROR_KIND_VERSION_MISMATCH, grpc.StatusCode.FAILED_PRECONDITION),
    errors.RateLimited: (pb.ERROR_KIND_RATE_LIMITED, grpc.StatusCode.RESOURCE_EXHAUSTED),
    errors.Overloaded: (pb.ERROR_KIND_OVERLOADED, grpc.StatusCode.UNAVAILABLE),
    errors.Unavailable: (pb.ERROR_KIND_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    errors.NotOwner: (pb.ERROR_KIND_NOT_OWNER, grpc.StatusCode.ABORTED),
    errors.StoreFull: (pb.ERROR_KIND_STORE_FULL, grpc.StatusCode.RESOURCE_EXHAUSTED),
    errors.OutcomeUnknown: (pb.ERROR_KIND_OUTCOME_UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED),
    errors.LinkLost: (pb.ERROR_KIND_LINK_LOST, grpc.StatusCode.DEADLINE_EXCEEDED),
    errors.Corrupt: (pb.ERROR_KIND_CORRUPT, grpc.StatusCode.DATA_LOSS),
    errors.Internal: (pb.ERROR_KIND_INTERNAL, grpc.StatusCode.INTERNAL),
}
_CLASSES: Final = {
    kind: cls
    for cls, (kind, _) in MAPPING.items()
    if cls not in (errors.UnsupportedMediaType, errors.MethodNotAllowed, errors.RequestTimeout)
}
_INTERNAL: Final = MAPPING[errors.Internal]


def encode_error(error: DeltaError) -> pb.Error:
    """Return ``error`` as the message that a reply carries; a class without a kind is INTERNAL."""
    retry_after_s = error.retry_after_s
    return pb.Error(
        kind=MAPPING.get(type(error), _INTERNAL)[0],
        code=error.code,
        detail=error.detail,
        # 0 means "not said", so the shortest wait that can be said is a millisecond.
        retry_after_ms=0 if retry_after_s is None else max(1, round(retry_after_s * 1000)),
        etag=error.etag or "",
        issues=[
            pb.Issue(pointer=issue.pointer, keyword=issue.keyword, detail=issue.detail)
            for issue in error.issues
        ],
        term=error.term,
    )


def decode_error(message: pb.Error) -> DeltaError:
    """Return the error that ``message`` describes; a kind unknown here becomes ``Internal``."""
    cls = _CLASSES.get(message.kind, errors.Internal)
    return cls(
        message.detail,
        code=message.code or None,
        retry_after_s=message.retry_after_ms / 1000 if message.retry_after_ms else None,
        etag=message.etag or None,
        issues=tuple(Issue(issue.pointer, issue.keyword, issue.detail) for issue in message.issues),
        term=message.term,
    )


def status_code(error: DeltaError) -> grpc.StatusCode:
    """Return the status with which a unary call fails for ``error``."""
    if isinstance(error, errors.PartlyApplied):
        return status_code(error.cause)
    return MAPPING.get(type(error), _INTERNAL)[1]
