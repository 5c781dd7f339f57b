"""What a failed call to obstore means: foreign exceptions in, our errors out. Pure.

obstore folds many failures into one class, and whether a failed put may have been applied is
only in the debug part of its text: the answer's status, S3's error code, or the phase in which
the connection broke. That part escapes whatever the server sent, so a body cannot forge it.
Nothing of a text is passed on: texts hold paths, URLs and request bodies.

What is not known to be a refusal counts, for a put, as a lost reply.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from deltadatabase.errors import (
    AlreadyExists,
    DeltaError,
    Internal,
    NotFound,
    OutcomeUnknown,
    StoreFull,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.storage.base import Condition, When

FAILURES: Final = (BaseError, OSError, ValueError, RuntimeError)
"""Whatever a call to obstore raises: its own tree, and builtin ones (TimeoutError is an OSError)."""

_DEBUG_MARK: Final = "\n\nDebug source:\n"
_STATUS = re.compile(r"inner: Status \{\s*status: (\d{3}),")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
# The request cannot have been sent: no connection was made, or no address was found.
_NOT_CONNECTED = re.compile(r"kind: Connect,|legacy::Error\(\s*Connect,")
# Answers that may come after the server, or a proxy before it, passed the put on.
_UNCERTAIN_STATUS: Final = frozenset({408, 500, 502, 503, 504})


class _Facts(NamedTuple):
    status: int
    code: str
    headless: bool
    """The failure cannot carry a code: a HEAD's answer, or no HTTP answer at all."""
    sent: bool


def read_failure(exc: Exception) -> DeltaError:
    """Translate the failure of a read or list. A missing object is ``NotFound``."""
    facts = _facts(exc)
    if isinstance(exc, FileNotFoundError) and _says_missing(facts):
        return NotFound("there is no such object")
    return _refusal(exc, facts) or Unavailable("the store cannot be reached or does not answer in time")


def put_failure(exc: Exception, condition: Condition) -> DeltaError:
    """Translate the failure of a put: a refusal, a lost condition, or an unknown outcome.

    S3 may answer 409 to concurrent conditional puts, whatever the condition: like a lost
    condition it means that this put was not applied and the object must be read again.
    """
    facts = _facts(exc)
    if isinstance(exc, (AlreadyExistsError, PreconditionError)):
        if condition is When.ABSENT:
            return AlreadyExists("an object of this name exists")
        if condition is When.ALWAYS:
            return Unavailable("the store refused an overwrite because of a concurrent one")
        return VersionMismatch("the object changed")
    return _refusal(exc, facts) or OutcomeUnknown("the store did not confirm the write")


def delete_failure(exc: Exception) -> DeltaError | None:
    """Translate the failure of a delete; None when there was no object."""
    facts = _facts(exc)
    if isinstance(exc, FileNotFoundError) and _says_missing(facts):
        return None
    return _refusal(exc, facts) or OutcomeUnknown("the store did not confirm the deletion")


def is_not_modified(exc: Exception) -> bool:
    """True when a conditional read failed because the object is unchanged."""
    return isinstance(exc, NotModifiedError)


def _refusal(exc: Exception, facts: _Facts) -> DeltaError | None:
    """The error of a call that certainly changed nothing; None when that is not certain."""
    if isinstance(exc, (PermissionDeniedError, UnauthenticatedError)) or facts.status in (401, 403):
        return Unavailable("the store denies access: check its credentials and rights", code="store_denied")
    if facts.code == "NoSuchBucket":
        return Unavailable("the bucket does not exist", code="store_bucket_missing")
    if facts.status == 507:
        return StoreFull("the store has no room")
    if isinstance(exc, (ValueError, NotImplementedError)):
        return Internal("the store client does not know this operation")
    if not facts.sent:
        return Unavailable("the store cannot be reached")
    if facts.status and facts.status not in _UNCERTAIN_STATUS:
        return Unavailable("the store refused the request", code="store_refused")
    return None


def _says_missing(facts: _Facts) -> bool:
    # A 404 of a proxy or of a wrong endpoint must not make every entity look absent. S3 sends
    # no code with a HEAD, and the memory backend has no answer at all.
    return facts.code == "NoSuchKey" or facts.headless


def _facts(exc: Exception) -> _Facts:
    debug = str(exc).rpartition(_DEBUG_MARK)[2]
    found = _STATUS.search(debug)
    # A redirect without a target: the bucket is in another region.
    status = int(found[1]) if found else 301 if "inner: BareRedirect" in debug else 0
    code = _CODE.search(debug)
    return _Facts(
        status,
        code[1] if code else "",
        headless=not status or "method: HEAD," in debug,
        sent=bool(status) or _NOT_CONNECTED.search(debug) is None,
    )
