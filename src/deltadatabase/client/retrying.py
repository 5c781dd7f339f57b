"""Whether and when a request is sent again. Pure: time and chance are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from deltadatabase import errors, limits
from deltadatabase.client.requests import Request
from deltadatabase.errors import DeltaError

FORGOTTEN: Final = "idempotency_key_forgotten"

_PASSING: Final = (errors.Unavailable, errors.Overloaded, errors.RateLimited, errors.OutcomeUnknown)
_NEVER: Final = frozenset({"untrusted", "wrong_master_key"})
# What the server says of the write itself, having looked whether an earlier try was applied.
_VERDICTS: Final = (
    errors.NotFound,
    errors.Conflict,
    errors.AlreadyExists,
    errors.VersionMismatch,
    errors.Unprocessable,
)


@dataclass(frozen=True)
class RetryPolicy:
    """How long one call may go on trying, in seconds from its begin; 0: every request is sent once."""

    give_up_after_s: float = 60.0


def may_retry(request: Request, error: DeltaError) -> bool:
    """Whether another try can help, and can do no harm.

    What certainly changed nothing may always be sent again. What may have been applied may only be
    sent again if it changes nothing, or if the server recognises the repeat.
    """
    cause = error.cause if isinstance(error, errors.PartlyApplied) else error
    if not isinstance(cause, _PASSING) or cause.code in _NEVER:
        return False
    return error.certain or request.may_repeat


def wait_s(attempt: int, error: DeltaError, chance: float) -> float:
    """How long to wait before the next try.

    Args:
        attempt: how many tries have failed, from 1.
        error: of the last one; its ``retry_after_s`` is the least.
        chance: from 0 to 1, spreads clients that failed together.
    """
    backoff = min(limits.CLIENT_RETRY_FIRST_S * 2.0 ** min(attempt - 1, 16), limits.CLIENT_RETRY_LONGEST_S)
    told = error.retry_after_s if error.status else None
    return (told or 0.0) + backoff * (0.5 + chance / 2)


def final(request: Request, error: DeltaError, *, unknown: bool) -> DeltaError:
    """The error that a call ends with.

    Args:
        request: what was asked.
        error: of the last try.
        unknown: an earlier try of a write may have been applied; then only a verdict on the write
            itself says what became of it.
    """
    if request.is_safe or not unknown or isinstance(error, errors.OutcomeUnknown):
        return error
    if isinstance(error, _VERDICTS) and error.code != FORGOTTEN:
        return error
    told = errors.OutcomeUnknown(
        f"the write may have been applied by an earlier try; the last one: {error.detail}",
        code=FORGOTTEN if error.code == FORGOTTEN else None,
    )
    told.status, told.request_id = error.status, error.request_id
    return told
