"""What an HTTP request says before its body: decided from raw bytes, without I/O.

The server below decodes paths leniently (invalid UTF-8 becomes U+FFFD), so two different
requests could look alike; everything here starts from the bytes that were sent.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from deltadatabase import limits
from deltadatabase.errors import Denied, Invalid, TooLarge
from deltadatabase.gateway.asgi import Headers, Scope

_REMEMBERED_BYTES_MAX: Final = 512
"""Longer paths are not kept in memory for the next time."""
_LINE_OVERHEAD_BYTES: Final = 4
"""``: `` and the line end of each header line."""
_SINGLE_FIELDS: Final = frozenset(
    {b"authorization", b"content-length", b"expect", b"host", b"origin", b"transfer-encoding"}
)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_VISIBLE_ASCII = re.compile(rb"[\x21-\x7e]+")
# RFC 9110, section 8.8.3: entity-tag, here with the weakness mark left outside.
_ETAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]*)?")


class Head(msgspec.Struct, frozen=True):
    """The checked beginning of a request.

    Attributes:
        method: as sent.
        path: percent-decoded, valid UTF-8 without NUL.
        query: raw bytes after the ``?``.
        fields: headers by lower-case name; repeated ones are joined with ``, ``.
        content_length: declared size of the body in bytes; None when it isn't declared.
        has_body: a body follows.
        raw_path: the path as sent, where an escaped ``/`` is no separator.
    """

    method: str
    path: str
    query: bytes
    fields: dict[bytes, bytes]
    content_length: int | None
    has_body: bool
    raw_path: bytes = b""

    @property
    def authorization(self) -> str | None:
        """The Authorization header; None without one."""
        value = self.fields.get(b"authorization")
        return None if value is None else value.decode("latin-1")


def request_id_of(headers: Headers, make: Callable[[], str]) -> str:
    """The client's ``X-Request-ID`` if it is visible ASCII of bounded length, else a new one."""
    for name, value in headers:
        if name == b"x-request-id":
            if len(value) <= limits.REQUEST_ID_BYTES_MAX and _VISIBLE_ASCII.fullmatch(value):
                return value.decode("ascii")
            break
    return make()


def examine(scope: Scope) -> Head:
    """Check a request's line and headers.

    Raises:
        TooLarge: ``headers_too_large``.
        Invalid: ``bad_path``, ``bad_header``, ``bad_framing``.
    """
    headers: Headers = scope["headers"]
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    fields = dict(headers)
    size = len(path) + len(query) + _LINE_OVERHEAD_BYTES * len(headers)
    for name, value in headers:
        size += len(name) + len(value)
    if size > limits.HEADER_BYTES_MAX:
        raise TooLarge(
            f"the request line and headers are larger than {limits.HEADER_BYTES_MAX} bytes",
            code="headers_too_large",
        )
    if len(fields) != len(headers):
        fields = _joined(headers)
    length = _content_length(fields) if b"content-length" in fields else None
    return Head(
        scope["method"],
        decode_path(path),
        query,
        fields,
        length,
        b"transfer-encoding" in fields or bool(length),
        path,
    )


def _joined(headers: Headers) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in fields:
            fields[name] = value
        elif name in _SINGLE_FIELDS:
            raise Invalid("a header that may stand only once is repeated", code="bad_header")
        else:
            fields[name] += b", " + value
    return fields


def _content_length(fields: dict[bytes, bytes]) -> int:
    value = fields[b"content-length"]
    if b"transfer-encoding" in fields:
        # Two framings of one body: the classic of request smuggling (RFC 9112, section 6.3).
        raise Invalid("content-length and transfer-encoding exclude each other", code="bad_framing")
    if not (value.isdigit() and len(value) < 19):
        raise Invalid("content-length is not a number", code="bad_framing")
    return int(value)


def decode_path(raw: bytes) -> str:
    """Percent-decode a path strictly.

    Raises:
        Invalid: ``bad_path``: a broken escape, invalid UTF-8, or NUL.
    """
    return _decode_path(raw) if len(raw) <= _REMEMBERED_BYTES_MAX else _decode(raw, "path", "bad_path")


@lru_cache(maxsize=1024)
def _decode_path(raw: bytes) -> str:
    return _decode(raw, "path", "bad_path")


def _decode(raw: bytes, what: str, code: str) -> str:
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise Invalid(f"the {what} has a '%' without two hex digits", code=code)
        raw = unquote_to_bytes(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Invalid(f"the {what} is not valid UTF-8", code=code) from None
    if "\0" in text:
        raise Invalid(f"the {what} holds a NUL", code=code)
    return text


def query_values(query: bytes, name: str) -> list[str]:
    """Values of the form parameter ``name`` in a raw query string, in order.

    Raises:
        Invalid: ``bad_query``: a broken escape, invalid UTF-8, or NUL anywhere in it.
    """
    values = []
    for part in query.replace(b"+", b" ").split(b"&"):
        key, _, value = (_decode(piece, "query", "bad_query") for piece in part.partition(b"="))
        if key == name:
            values.append(value)
    return values


def flag(query: bytes, name: str) -> bool:
    """The form parameter ``name``, ``true`` or ``false``; False without it. Raises Invalid: ``bad_query``."""
    values = query_values(query, name)
    if values not in ([], ["true"], ["false"]):
        raise Invalid(f"the query parameter '{name}' is 'true' or 'false', once", code="bad_query")
    return values == ["true"]


def parameters(query: bytes, *names: str) -> dict[str, str]:
    """The form parameters of a raw query string where no others than ``names`` may stand.

    A misspelt one must not go unnoticed: an import without ``skip_existing`` overwrites.

    Raises:
        Invalid: ``bad_query``: another one, one that stands twice, or as ``query_values``.
    """
    given: dict[str, str] = {}
    for part in filter(None, query.replace(b"+", b" ").split(b"&")):
        name, _, value = (_decode(piece, "query", "bad_query") for piece in part.partition(b"="))
        if name not in names:
            known = f"the query parameters here are {', '.join(names)}" if names else "there are none here"
            raise Invalid(f"a query parameter is not known: {known}", code="bad_query")
        if name in given:
            raise Invalid(f"the query parameter '{name}' is given more than once", code="bad_query")
        given[name] = value
    return given


def choice(given: Mapping[str, str], name: str, known: Sequence[str], default: str) -> str:
    """One of a few values of a parameter; ``default`` without it.

    Raises:
        Invalid: ``bad_query``.
    """
    value = given.get(name)
    if value is None:
        return default
    if value not in known:
        raise Invalid(f"the query parameter '{name}' is one of {', '.join(known)}", code="bad_query")
    return value


def switch(given: Mapping[str, str], name: str) -> bool:
    """A parameter that is ``true`` or ``false``; False without it. Raises Invalid: ``bad_query``."""
    return choice(given, name, ("true", "false"), "false") == "true"


def number(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """A whole number in a parameter. Raises Invalid: ``bad_query``."""
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise Invalid(f"the query parameter '{name}' is a number from {least} to {most}", code="bad_query")
    return int(text)


def etags(value: bytes | None) -> tuple[str, ...] | None:
    """ETags listed in an If-None-Match header, weakness ignored; ``("*",)``; None without any."""
    if value is None:
        return None
    if value.strip() == b"*":
        return ("*",)
    return tuple(tag.decode("latin-1") for tag in _ETAG.findall(value)) or None


def check_local(fields: dict[bytes, bytes]) -> None:
    """Refuse what a foreign web page could have sent to an unprotected local server.

    A page can point a name of its own at 127.0.0.1, but then the Host is that name; and
    a browser says in Origin which page is asking.

    Raises:
        Denied: ``foreign_host`` or ``foreign_origin``.
    """
    if not is_loopback(fields.get(b"host", b"").decode("latin-1")):
        raise Denied("dev mode answers only to a loopback host name", code="foreign_host")
    origin = fields.get(b"origin")
    if origin is not None:
        try:
            authority = urlsplit(origin.decode("latin-1")).netloc
        except ValueError:
            authority = ""
        if not is_loopback(authority):
            raise Denied("dev mode answers no page of another origin", code="foreign_origin")


@lru_cache(maxsize=64)
def is_loopback(authority: str) -> bool:
    """True when a ``host[:port]`` names this machine's loopback interface."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return False
    host = match[1].strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
