"""The one mapping from the error tree to HTTP: RFC 9457 problem documents."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, Final

import msgspec

from deltadatabase import errors
from deltadatabase.errors import DeltaError
from deltadatabase.gateway.asgi import Answer, Headers

CONTENT_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:deltadatabase:error:"

_STATUS: Final[dict[type[DeltaError], int]] = {
    errors.Invalid: 400,
    errors.TooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.MethodNotAllowed: 405,
    errors.RequestTimeout: 408,
    errors.Unauthenticated: 401,
    errors.Denied: 403,
    errors.NotFound: 404,
    errors.Unprocessable: 422,
    errors.PreconditionRequired: 428,
    errors.Gone: 410,
    errors.Conflict: 409,
    errors.AlreadyExists: 412,
    errors.VersionMismatch: 412,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    errors.Unavailable: 503,
    errors.NotOwner: 503,
    errors.StoreFull: 507,
    errors.OutcomeUnknown: 504,
    errors.LinkLost: 504,
    errors.Corrupt: 500,
    errors.Internal: 500,
    errors.StartupError: 500,
    DeltaError: 500,
}
"""Status of each class; ``PartlyApplied`` has that of its cause."""

_STATUS_OF_CODE: Final = {"headers_too_large": 431}
"""Codes whose status is finer than that of their class."""

_PUBLIC_CODE: Final = {
    errors.NotOwner: errors.Unavailable.default_code,
    errors.LinkLost: errors.OutcomeUnknown.default_code,
    errors.StartupError: errors.Internal.default_code,
}
"""Classes that are our own affair appear to a client as their public kind."""

_RETRY_STATUSES: Final = frozenset({429, 503})
_RETRY_AFTER_DEFAULT_S: Final = 1.0


def status_of(error: DeltaError) -> int:
    """HTTP status of ``error``."""
    if isinstance(error, errors.PartlyApplied):
        return status_of(error.cause)
    if error.code in _STATUS_OF_CODE:
        return _STATUS_OF_CODE[error.code]
    return next(_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS)


def code_of(error: DeltaError) -> str:
    """The stable code of ``error``, as clients see it."""
    return _PUBLIC_CODE.get(type(error), error.code)


def problem(error: DeltaError, request_id: str, **extensions: object) -> Answer:
    """Render ``error`` as a problem document.

    Members: ``type``, ``title``, ``status``, ``detail`` (RFC 9457), ``error`` (the stable code),
    ``request_id``, ``errors`` for a schema refusal, ``outcomes`` for a write stored in part,
    and ``extensions``.
    """
    status = status_of(error)
    code = code_of(error)
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.detail,
        "error": code,
        "request_id": request_id,
    }
    if error.issues:
        document["errors"] = error.issues
    if isinstance(error, errors.PartlyApplied):
        document["outcomes"] = error.outcomes
    document.update(extensions)
    return Answer(status, _headers(error, status), msgspec.json.encode(document))


def _headers(error: DeltaError, status: int) -> Headers:
    headers: Headers = [(b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store")]
    retry_after_s = error.retry_after_s
    if retry_after_s is None and status in _RETRY_STATUSES:
        retry_after_s = _RETRY_AFTER_DEFAULT_S
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(retry_after_s))))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="deltadatabase"'))
    if error.etag:
        headers.append((b"etag", error.etag.encode()))
    if isinstance(error, errors.MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allow).encode()))
    return headers
