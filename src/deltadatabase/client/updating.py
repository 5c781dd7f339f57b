"""Read, change, write on condition, and again if somebody was faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from deltadatabase.client import calls
from deltadatabase.client.answers import Entity
from deltadatabase.client.retrying import wait_s
from deltadatabase.client.steps import Apply, Means, Sleep, Steps, single
from deltadatabase.errors import AlreadyExists, NotFound, VersionMismatch

LONGEST_WAIT_S: Final = 0.5


def update(
    schema: str,
    key: str,
    function: Callable[[Any], Any],
    means: Means,
    *,
    as_: Any,
    create: bool,
    attempts: int,
) -> Steps[Entity[Any]]:
    """Put ``function(value)`` in the place of the value that it was called with.

    Raises:
        VersionMismatch: others were faster, ``attempts`` times.
        NotFound: there is no such entity, and ``create`` is False.
    """
    attempt = 0
    while True:
        attempt += 1
        before: Entity[Any] | None = None
        try:
            before = yield from single(calls.get(schema, key, as_=as_), means)
        except NotFound:
            if not create:
                raise
        value = yield Apply(function, None if before is None else before.value)
        condition: dict[str, Any] = {"if_match": before.etag} if before else {"if_none_match": "*"}
        try:
            written = yield from single(calls.put(schema, key, value, **condition), means)
        except (VersionMismatch, AlreadyExists) as exc:
            if attempt >= attempts:
                raise
            yield Sleep(min(wait_s(attempt, exc, means.chance()) / 10, LONGEST_WAIT_S))
            continue
        return Entity(
            key=key, value=value, etag=written.etag, version=written.version, updated_at=written.updated_at
        )
