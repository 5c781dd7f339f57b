"""Every error that DeltaDatabase raises: its kind, its stable code and what the caller should do.

A class exists only where the caller would act differently. The finer reason is the
``code``: a short stable word that clients may compare. The two mappings to the outside
are in ``gateway/problem.py`` (HTTP) and ``rpc/status.py`` (gRPC).

No detail ever holds document content, key material, a path, a URL or a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec


class Issue(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One reason why a schema refuses a document.

    Attributes:
        key: the entity's key, where a request has several documents; else "".
        pointer: JSON Pointer (RFC 6901) to the place in the document.
        keyword: the JSON Schema keyword that failed.
        detail: the reason in words, without the document's values.
    """

    pointer: str
    keyword: str
    detail: str
    key: str = ""


class DeltaError(Exception):
    """The root of the tree.

    Attributes:
        code: stable machine-readable reason; each class has a default.
        detail: one sentence for a person.
        retry_after_s: when a new try may help, in seconds; None when the error says nothing of it.
        etag: the entity's current ETag, where a failed condition reports it.
        issues: reasons of a schema refusal.
        term: the term met in the store, where ``NotOwner`` was caused by a newer one; else 0.
        status, request_id: of the answer that told the error, where a client raises it; else 0 and "".
    """

    default_code: ClassVar[str] = "internal"
    default_retry_after_s: ClassVar[float | None] = None
    #: True when the failed operation certainly changed nothing.
    certain: ClassVar[bool] = True
    status: int = 0
    request_id: str = ""

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        retry_after_s: float | None = None,
        etag: str | None = None,
        issues: tuple[Issue, ...] = (),
        term: int = 0,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s if retry_after_s is not None else self.default_retry_after_s
        self.etag = etag
        self.issues = issues
        self.term = term


class Invalid(DeltaError):
    """The request is malformed or its schema refuses it: fix it."""

    default_code = "invalid"


class TooLarge(Invalid):
    """The request exceeds a size limit: send less."""

    default_code = "too_large"


class UnsupportedMediaType(Invalid):
    """The request's content type is not served here: choose another."""

    default_code = "unsupported_media_type"


class MethodNotAllowed(Invalid):
    """The resource does not know this method; ``allow`` lists those that it does."""

    default_code = "method_not_allowed"

    def __init__(self, detail: str, *, allow: tuple[str, ...]) -> None:
        super().__init__(detail)
        self.allow = allow


class RequestTimeout(Invalid):
    """The client did not send its request in time: send it again, faster."""

    default_code = "request_timeout"


class Unprocessable(Invalid):
    """The request is well-formed and contradicts an earlier one of the same name: use another name."""

    default_code = "unprocessable"


class PreconditionRequired(Invalid):
    """The schema wants every write to name the version that it replaces: send a condition."""

    default_code = "precondition_required"


class Unauthenticated(DeltaError):
    """No valid credentials: present some."""

    default_code = "unauthenticated"


class Denied(DeltaError):
    """The caller is known but lacks the right: stop."""

    default_code = "denied"


class NotFound(DeltaError):
    """What was asked for does not exist: stop."""

    default_code = "not_found"


class Gone(DeltaError):
    """What was asked for was there and is kept no longer: begin anew."""

    default_code = "gone"


class Conflict(DeltaError):
    """The request contradicts the present state: look at it, then decide."""

    default_code = "conflict"


class AlreadyExists(DeltaError):
    """A create met an existing object: choose another name, or update."""

    default_code = "already_exists"


class VersionMismatch(DeltaError):
    """A condition on the current version failed: read again, apply again."""

    default_code = "version_mismatch"


class RateLimited(DeltaError):
    """Too many requests of this caller: slow down."""

    default_code = "rate_limited"
    default_retry_after_s = 3.0


class Overloaded(DeltaError):
    """A bounded queue is full: back off."""

    default_code = "overloaded"
    default_retry_after_s = 1.0


class Unavailable(DeltaError):
    """Something needed is not there now; nothing was changed: try again later."""

    default_code = "unavailable"
    default_retry_after_s = 1.0


class NotOwner(Unavailable):
    """This worker does not own the entity's shard (internal): look the owner up again.

    Refused before execution. ``term`` is the newer term that was met, or 0.
    """

    default_code = "not_owner"


class StoreFull(DeltaError):
    """The store has no room or is read-only; nothing was changed: make room."""

    default_code = "store_full"


class OutcomeUnknown(DeltaError):
    """The operation may or may not have been applied: read before trying again."""

    default_code = "outcome_unknown"
    certain = False


class LinkLost(OutcomeUnknown):
    """The connection to a worker broke while it held a request (internal)."""

    default_code = "link_lost"


class PartlyApplied(DeltaError):
    """A write of several entities was stored only in part: look at each outcome.

    ``outcomes`` maps each key to its new version, or to the code of its error;
    ``cause`` is the gravest of those errors.
    """

    default_code = "partly_applied"
    certain = False

    def __init__(self, detail: str, *, outcomes: Mapping[str, int | str], cause: DeltaError) -> None:
        super().__init__(detail, retry_after_s=cause.retry_after_s)
        self.outcomes = dict(outcomes)
        self.cause = cause


class Corrupt(DeltaError):
    """A stored object fails its integrity check: call the operator."""

    default_code = "integrity"


class Internal(DeltaError):
    """A mistake of ours: report it. What it interrupted may have been applied."""

    default_code = "internal"
    certain = False


class StartupError(DeltaError):
    """A program cannot start or go on: one line on stderr, exit code 2.

    ``code`` names the reason: ``bad_flag``, ``port_in_use``, ``store_unreachable``,
    ``store_refused``, ``wrong_master_key``, ``not_admitted``, ``replaced``, ``locked``,
    ``state_unusable``.
    """

    default_code = "startup"
