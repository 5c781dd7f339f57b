"""Requests and answers as plain values, and how names, queries and conditions are spelled in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

from deltadatabase.errors import Invalid

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
IDEMPOTENCY_KEY: Final = "idempotency-key"

_ETAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]*"|\*')
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,253}")
_VERSION: Final = re.compile(r'"([0-9]{1,18})-')


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Attributes:
        method: in capitals.
        path: escaped, with its query.
        headers: beside those of every request; names in small letters.
        body: the whole body.
        repeatable: may be sent again although an earlier try may have been applied.
        harmless: changes nothing, though its method could.
        timeout_s: how long an answer may take; None is the client's usual time.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    repeatable: bool = False
    harmless: bool = False
    timeout_s: float | None = None

    @property
    def is_safe(self) -> bool:
        """Whether it changes nothing, however often it is sent."""
        return self.harmless or self.method in SAFE_METHODS

    @property
    def may_repeat(self) -> bool:
        """Whether a second application does no harm, or is recognised by the server."""
        return self.repeatable or self.is_safe or IDEMPOTENCY_KEY in self.headers


@dataclass(frozen=True)
class Response:
    """One HTTP answer; names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Failure:
    """No answer came.

    Attributes:
        sent: the server may have got the request.
        untrusted: its certificate is of an unknown authority or of another name.
    """

    sent: bool
    untrusted: bool = False


def segment(text: str, what: str) -> str:
    """Escape a name as one segment of a path.

    Raises:
        Invalid: ``bad_name``: it is empty, or no Unicode text.
    """
    if not text:
        raise Invalid(f"the {what} is empty", code="bad_name")
    escaped = _quoted(text, what)
    # Dots alone would be taken for a step up, by us or by a proxy.
    return escaped.replace(".", "%2E") if not escaped.strip(".") else escaped


def with_query(path: str, **parameters: str | int | None) -> str:
    """Append the parameters that are not None."""
    given = [f"{name}={_quoted(str(value), name)}" for name, value in parameters.items() if value is not None]
    return f"{path}?{'&'.join(given)}" if given else path


def conditions(
    if_match: str | Sequence[str] | None = None, if_none_match: str | Sequence[str] | None = None
) -> dict[str, str]:
    """Spell conditions as headers.

    Raises:
        Invalid: ``bad_etag``: one is no ETag; they have their quotes.
    """
    headers = {}
    for name, tags in (("if-match", if_match), ("if-none-match", if_none_match)):
        if tags is None:
            continue
        listed = [tags] if isinstance(tags, str) else [*tags]
        if not listed or not all(map(_ETAG.fullmatch, listed)):
            raise Invalid(f'{name}: not an ETag such as "3-0123abcd", with its quotes', code="bad_etag")
        headers[name] = ", ".join(listed)
    return headers


def idempotency(key: str) -> dict[str, str]:
    """Spell an idempotency key as a header.

    Raises:
        Invalid: ``bad_idempotency_key``.
    """
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Invalid(
            "the idempotency key is not 1 to 253 visible ASCII characters without quotes and backslashes",
            code="bad_idempotency_key",
        )
    return {IDEMPOTENCY_KEY: f'"{key}"'}


def version_of(etag: str) -> int:
    """The version in an entity's ETag; 0 when it has none."""
    found = _VERSION.match(etag)
    return int(found[1]) if found else 0


def http_date(text: str | None) -> datetime | None:
    """Read an HTTP date; None when there is none that can be read."""
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def _quoted(text: str, what: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise Invalid(f"the {what} is not Unicode text", code="bad_name") from None
