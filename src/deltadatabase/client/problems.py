"""Answers that are no success, and missing answers, as the errors of ``deltadatabase.errors``."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from deltadatabase import errors, limits
from deltadatabase.client.requests import Failure, Request, Response
from deltadatabase.errors import DeltaError, Issue

_CLASS: Final[dict[int, type[DeltaError]]] = {
    401: errors.Unauthenticated,
    403: errors.Denied,
    404: errors.NotFound,
    408: errors.RequestTimeout,
    409: errors.Conflict,
    410: errors.Gone,
    412: errors.VersionMismatch,
    413: errors.TooLarge,
    415: errors.UnsupportedMediaType,
    422: errors.Unprocessable,
    428: errors.PreconditionRequired,
    429: errors.RateLimited,
    431: errors.TooLarge,
    502: errors.OutcomeUnknown,
    503: errors.Unavailable,
    504: errors.OutcomeUnknown,
    507: errors.StoreFull,
}
_CLASS_OF_CODE: Final[dict[tuple[int, str], type[DeltaError]]] = {
    (412, errors.AlreadyExists.default_code): errors.AlreadyExists,
    (503, errors.Overloaded.default_code): errors.Overloaded,
    (500, errors.Corrupt.default_code): errors.Corrupt,
}


class _Problem(msgspec.Struct, frozen=True):
    error: str = ""
    detail: str = ""
    request_id: str = ""
    errors: tuple[Issue, ...] = ()
    outcomes: dict[str, int | str] | None = None


def error_of(request: Request, outcome: Response | Failure) -> DeltaError | None:
    """The error that an outcome means; None for a success."""
    if isinstance(outcome, Failure):
        return _of_failure(request, outcome)
    if 200 <= outcome.status < 300 or outcome.status == 304:
        return None
    return of_response(outcome)


def of_response(response: Response) -> DeltaError:
    """Rebuild the error that a server told."""
    status = response.status
    if 300 <= status < 400:
        error: DeltaError = errors.Invalid(
            "the server's URL leads elsewhere; redirects are not followed, so that nobody else gets the key",
            code="redirected",
        )
    else:
        error = _of_problem(status, response)
    error.status = status
    error.request_id = error.request_id or response.headers.get("x-request-id", "")
    return error


def of_problem(status: int, document: bytes) -> DeltaError:
    """Rebuild the error of a problem document that came without an answer of its own."""
    return of_response(Response(status, {}, document))


def not_ours() -> DeltaError:
    """An answer that no DeltaDatabase gives."""
    return errors.Internal("this is not the REST API of a DeltaDatabase", code="not_deltadatabase")


def _of_failure(request: Request, failure: Failure) -> DeltaError:
    if failure.untrusted:
        return errors.Unavailable(
            "the server's certificate is not trusted: give its authority (tls_ca, -tls-ca)", code="untrusted"
        )
    if failure.sent and not request.is_safe:
        return errors.OutcomeUnknown("the connection ended before the answer: read before trying again")
    return errors.Unavailable(
        "the server does not answer: give its URL (DELTADB_URL, -url), with https:// if it has a certificate",
        code="unreachable",
    )


def _of_problem(status: int, response: Response) -> DeltaError:
    try:
        problem = msgspec.json.decode(response.body, type=_Problem)
    except msgspec.MsgspecError:
        problem = _Problem()
    if not problem.error and status not in _CLASS:
        return not_ours()
    usual = errors.Invalid if status < 500 else errors.Internal
    cls = _CLASS_OF_CODE.get((status, problem.error)) or _CLASS.get(status, usual)
    details: dict[str, Any] = {
        "retry_after_s": _retry_after_s(response.headers.get("retry-after")),
        "etag": response.headers.get("etag"),
        "issues": problem.errors,
    }
    detail = problem.detail or f"the server answers {status}"
    if cls is errors.MethodNotAllowed:
        cls = errors.Invalid
    error = cls(detail, code=problem.error or None, **details)
    if problem.outcomes is not None:
        error = errors.PartlyApplied(detail, outcomes=problem.outcomes, cause=error)
    error.request_id = problem.request_id
    return error


def _retry_after_s(text: str | None) -> float | None:
    # A date is the other form that HTTP allows; no DeltaDatabase sends one.
    if text is None or not text.isdecimal():
        return None
    return min(float(text), limits.CLIENT_RETRY_AFTER_MAX_S)
