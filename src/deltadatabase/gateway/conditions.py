"""What a request's conditional headers, content type and preferences ask for (RFC 9110, 7240). Pure.

Strict where a lenient reading could lose a write: a malformed ``If-Match`` is refused, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from deltadatabase.errors import Invalid, NotFound, UnsupportedMediaType, VersionMismatch
from deltadatabase.limits import CONDITION_TAGS_MAX, IDEMPOTENCY_KEY_BYTES_MAX
from deltadatabase.model import PatchKind, Result

Fields = Mapping[bytes, bytes]
Tags = tuple[str, ...]

ANY: Final[Tags] = ("*",)
"""Any existing entity."""
PATCH_TYPES: Final = {
    "application/merge-patch+json": PatchKind.MERGE,
    "application/json-patch+json": PatchKind.JSON,
}
"""Content types of a PATCH."""

# RFC 9110, section 8.8.3. Empty elements of a list are ignored (section 5.6.1.2).
_TAG: Final = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_BETWEEN: Final = re.compile(rb"[ \t]*(?:,[ \t]*)*")
# RFC 8941, section 3.3.3, without spaces; or the same bytes bare, as many clients send them.
_QUOTED_KEY: Final = re.compile(rb'"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"')
_BARE_KEY: Final = re.compile(rb"[\x21\x23-\x2b\x2d-\x7e]+")
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE: Final = re.compile(rb"(%b/%b)[ \t]*((?:;[^\x00-\x08\x0a-\x1f\x7f]*)?)" % (_TOKEN, _TOKEN))
_CHARSET: Final = re.compile(rb';[ \t]*charset=(?:"([^"]*)"|([^;" \t]*))', re.IGNORECASE)
# The one form that is to be generated, and the two obsolete ones, all begin with a weekday.
_DAY: Final = re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? [ -~]{8,60}")
_PREFERENCE: Final = re.compile(rb'return=(?:"(minimal|representation)"|(minimal|representation))')


class Conditions(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which versions of an entity a request is meant for.

    Attributes:
        if_match: strong ETags one of which must be current, ``ANY``, or () where only weak ones are
            named, which never match; None: no such condition.
        if_none_match: ETags none of which may be current, or ``ANY``; None: no such condition.
    """

    if_match: Tags | None = None
    if_none_match: Tags | None = None

    def hold(self, etag: str) -> bool:
        """Whether they hold for an entity with this ETag; "" for an absent one."""
        wanted, unwanted = self.if_match, self.if_none_match
        if wanted is not None and not (etag and _names(wanted, etag)):
            return False
        return not (unwanted is not None and etag and _names(unwanted, etag))


NO_CONDITIONS: Final = Conditions()


def conditions_of(fields: Fields) -> Conditions:
    """Read ``If-Match`` (strong comparison) and ``If-None-Match`` (weak comparison).

    Raises:
        Invalid: ``bad_header``: malformed, or more than ``limits.CONDITION_TAGS_MAX`` tags.
    """
    wanted, unwanted = fields.get(b"if-match"), fields.get(b"if-none-match")
    if wanted is None and unwanted is None:
        return NO_CONDITIONS
    return Conditions(
        if_match=None if wanted is None else _tags(wanted, "If-Match", weak=False),
        if_none_match=None if unwanted is None else _tags(unwanted, "If-None-Match", weak=True),
    )


def write_conditions_of(fields: Fields) -> Conditions:
    """The conditions of a write.

    Raises:
        Invalid: as ``conditions_of``; also ``bad_header`` for ``If-Unmodified-Since`` alone: it has
            whole seconds, in which another write has room, and to ignore it would lose that one.
    """
    if b"if-unmodified-since" in fields and b"if-match" not in fields:
        raise Invalid(
            "If-Unmodified-Since cannot protect a write, as its seconds are too coarse; "
            "send If-Match with the ETag",
            code="bad_header",
        )
    return conditions_of(fields)


def check_read(fields: Fields, conditions: Conditions, result: Result) -> Result:
    """Apply to an entity that was read what its reader did not do: all but ``If-None-Match`` with tags.

    In the order of RFC 9110, section 13.2.2. A date that is none is ignored, as it says.

    Returns:
        ``result``, perhaps with ``not_modified``.

    Raises:
        VersionMismatch: with the current ETag.
    """
    if conditions.if_match is not None:
        if not _names(conditions.if_match, result.etag):
            raise VersionMismatch("entity is not in a version that If-Match names", etag=result.etag)
    else:
        until_s = _date(fields, b"if-unmodified-since")
        if until_s is not None and result.updated_ms // 1000 > until_s:
            raise VersionMismatch("entity was modified since If-Unmodified-Since", etag=result.etag)
    if conditions.if_none_match is None:
        since_s = _date(fields, b"if-modified-since")
        if since_s is not None and result.updated_ms // 1000 <= since_s:
            return msgspec.structs.replace(result, document=b"", not_modified=True)
    return result


def absent(error: VersionMismatch) -> NotFound | None:
    """What a failed condition says to a request that needs an entity, if there is none.

    Such a request would be 404 without its conditions, so they are not looked at (RFC 9110, 13.2.1).
    """
    return None if error.etag else NotFound("there is no such entity", code="entity_not_found")


def check_document_type(fields: Fields) -> None:
    """Accept the content types of a document: none, ``application/json``, ``application/*+json``.

    Raises:
        UnsupportedMediaType: any other, a patch's among them, or another charset than UTF-8.
    """
    value = fields.get(b"content-type")
    if value is None or value == b"application/json":
        return
    name = _media_type(value)
    json = name == "application/json" or (name.startswith("application/") and name.endswith("+json"))
    if not json or name in PATCH_TYPES:
        raise UnsupportedMediaType("a document is sent as content-type application/json")


def patch_kind(fields: Fields) -> PatchKind:
    """Read a PATCH's content type.

    Raises:
        UnsupportedMediaType: it is none of ``PATCH_TYPES``.
    """
    kind = PATCH_TYPES.get(_media_type(fields.get(b"content-type", b"")))
    if kind is None:
        raise UnsupportedMediaType(f"a patch is sent as content-type {' or '.join(PATCH_TYPES)}")
    return kind


def preference(fields: Fields) -> str:
    """What ``Prefer`` wants back: ``minimal``, ``representation``, or "" where it doesn't say."""
    value = fields.get(b"prefer")
    if value is None:
        return ""
    for part in value.split(b","):
        if match := _PREFERENCE.fullmatch(part.partition(b";")[0].strip(b" \t")):
            return (match[1] or match[2]).decode()
    return ""


def idempotency_key(fields: Fields) -> bytes | None:
    """Read ``Idempotency-Key``, quoted or bare; None without one.

    Raises:
        Invalid: ``bad_header``: not 1 to 255 visible ASCII characters, or repeated.
    """
    value = fields.get(b"idempotency-key")
    if value is None:
        return None
    if match := _QUOTED_KEY.fullmatch(value):
        key = re.sub(rb'\\(["\\])', rb"\1", match[1])
    elif _BARE_KEY.fullmatch(value):
        key = value
    else:
        key = b""
    if not 0 < len(key) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise Invalid(
            f"Idempotency-Key is a quoted string of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} "
            "visible ascii characters, given once",
            code="bad_header",
        )
    return key


def _names(tags: Tags, etag: str) -> bool:
    return etag in tags or tags == ANY


def _tags(value: bytes, header: str, *, weak: bool) -> Tags:
    """The tags of a list; weak ones are left out, or counted as what they are without the mark."""
    if value.strip(b" \t") == b"*":
        return ANY
    tags: list[str] = []
    count = 0
    at = _end(_BETWEEN, value, 0)
    while at < len(value):
        match = _TAG.match(value, at)
        if match is None:
            raise _malformed(header)
        count += 1
        if weak or match[1] is None:
            tags.append(match[2].decode("latin-1"))
        at = _end(_BETWEEN, value, match.end())
        if at < len(value) and b"," not in value[match.end() : at]:
            raise _malformed(header)
    if not count:
        raise _malformed(header)
    if count > CONDITION_TAGS_MAX:
        raise Invalid(f"{header} names more than {CONDITION_TAGS_MAX} etags", code="bad_header")
    return tuple(tags)


def _end(pattern: re.Pattern[bytes], value: bytes, at: int) -> int:
    match = pattern.match(value, at)
    return at if match is None else match.end()


def _malformed(header: str) -> Invalid:
    return Invalid(f'{header} is neither "*" nor a list of quoted etags', code="bad_header")


def _media_type(value: bytes) -> str:
    """Type and subtype in lower case; "" where it is malformed or names another charset than UTF-8."""
    match = _MEDIA_TYPE.fullmatch(value.strip(b" \t"))
    if match is None:
        return ""
    if (charset := _CHARSET.search(match[2])) and (charset[1] or charset[2]).lower() != b"utf-8":
        return ""
    return match[1].decode().lower()


def _date(fields: Fields, name: bytes) -> int | None:
    """Seconds since the Unix epoch; None without the header, or if it is no HTTP date."""
    value = fields.get(name)
    if value is None or not _DAY.fullmatch(value):
        return None
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
        # The oldest form names no zone; all are in GMT.
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
