"""Several requests in one body, in Kinto's form: how a batch is read, ordered and answered. Pure.

The form is that of Kinto's ``POST /batch`` (docs.kinto-storage.org, "Batch operations"), with
three differences: members that it does not know are refused, a header of a request replaces the
default of the same name alone, and a default body is taken whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from deltadatabase import limits
from deltadatabase.errors import Invalid, TooLarge
from deltadatabase.gateway.asgi import Headers
from deltadatabase.gateway.edge import first_segment
from deltadatabase.gateway.entity import PREFIX as ENTITY
from deltadatabase.gateway.entity import entity_key
from deltadatabase.gateway.request import decode_path, query_values

METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})
HEADERS: Final = frozenset(
    {
        "accept",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-unmodified-since",
        "prefer",
        "user-agent",
        "x-request-id",
    }
)
"""What a request in a batch may say for itself. Who asks, from where, and how bodies are framed is the
batch's own affair; a header that would be without effect is refused, too."""
NOT_BATCHED: Final = frozenset({"batch", "changes", "export", "import"})
"""First segments of the paths that are streams, or batches again."""
SCANNED: Final = frozenset({"schema", "schemas"})
"""First segments of the paths that are a stream with ``scan=true``."""
SAFE: Final = frozenset({"GET", "HEAD"})

# What an HTTP/1.1 request line may carry, and no fragment (RFC 3986, section 3).
_TARGET = re.compile(r"/(?!/)[!\x22\x24-\x7e]*")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_ENTITIES: Final = "/entities/"
_HOP_BY_HOP: Final = frozenset({"connection", "content-length", "transfer-encoding"})

Lane = tuple[str, str]
"""Schema id and key of the one entity that a request concerns."""


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    method: str | msgspec.UnsetType = msgspec.UNSET
    path: str | msgspec.UnsetType = msgspec.UNSET
    headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    requests: msgspec.Raw
    defaults: _Given | msgspec.UnsetType = msgspec.UNSET


# An array with a place for each request: it ends the reading of one that is longer, where a list would
# make millions of objects first.
_REQUESTS: Final = msgspec.defstruct(
    "_Requests",
    [
        (f"r{number}", _Given | msgspec.UnsetType, msgspec.UNSET)
        for number in range(limits.BATCH_REQUESTS_MAX)
    ],
    array_like=True,
    forbid_unknown_fields=True,
)
_TOO_LONG: Final = f"Expected `array` of at most length {limits.BATCH_REQUESTS_MAX}"


class BatchedRequest(NamedTuple):
    """One request of a batch.

    Attributes:
        method: of ``METHODS``.
        target: path and query, as given.
        headers: lower-case names; those of the batch itself are not among them.
        body: JSON, the exact bytes; None without one. A view into the batch's body.
    """

    method: str
    target: str
    headers: Headers
    body: msgspec.Raw | None


class BatchedResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one request of a batch.

    Attributes:
        status: HTTP status code.
        path: as given in the request.
        headers: lower-case names.
        body: JSON as it is, anything else as a string; null without one.
        omitted: the answers together were too large, so this one's body was left out; the request
            itself was served, as ``status`` says.
    """

    status: int
    path: str
    headers: dict[str, str]
    body: msgspec.Raw
    omitted: bool = False


class BatchAnswer(msgspec.Struct, frozen=True):
    """Answers in the order of the requests."""

    responses: list[BatchedResponse]


_decode_batch: Final = msgspec.json.Decoder(_Batch).decode
_decode_requests: Final = msgspec.json.Decoder(_REQUESTS).decode
_decode_headers: Final = msgspec.json.Decoder(dict[str, str]).decode


def parse_batch(body: bytes) -> list[BatchedRequest]:
    """Read a batch; nothing of it is executed if one of its requests is malformed.

    Raises:
        Invalid: ``bad_batch``, with the number of the request from 0.
        TooLarge: more than ``limits.BATCH_REQUESTS_MAX`` requests, or of ``limits.HEADER_BYTES_MAX`` headers.
    """
    try:
        batch = _decode_batch(body)
        places = msgspec.structs.astuple(_decode_requests(batch.requests))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if str(exc) == _TOO_LONG:
            raise TooLarge(f"the batch holds more than {limits.BATCH_REQUESTS_MAX} requests") from None
        # The parser's own words may quote names of the body.
        raise Invalid(
            'the batch is not a json object {"defaults": {…}, "requests": [{"method", "path", "headers", '
            '"body"}, …]}',
            code="bad_batch",
        ) from None
    requests = [given for given in places if isinstance(given, _Given)]
    if not requests:
        raise Invalid("the batch holds no requests", code="bad_batch")
    defaults = _Given() if batch.defaults is msgspec.UNSET else batch.defaults
    default_headers = _headers(defaults.headers, "the defaults")
    return [
        _request(given, defaults, default_headers, f"request {number}")
        for number, given in enumerate(requests)
    ]


def _request(
    given: _Given, defaults: _Given, default_headers: dict[bytes, bytes], which: str
) -> BatchedRequest:
    method = _first(given.method, defaults.method, "GET").upper()
    if method not in METHODS:
        raise Invalid(f"the method of {which} is not served in a batch", code="bad_batch")
    target = _first(given.path, defaults.path, "")
    if not _TARGET.fullmatch(target):
        raise Invalid(
            f"the path of {which} is not one '/', then visible ASCII with everything else percent-encoded",
            code="bad_batch",
        )
    if _is_stream(target):
        raise Invalid(f"the path of {which} is not served in a batch", code="bad_batch")
    headers = default_headers | _headers(given.headers, which)
    body = given.body if given.body is not msgspec.UNSET else defaults.body
    if body is not msgspec.UNSET:
        headers.setdefault(b"content-type", b"application/json")
    return BatchedRequest(method, target, list(headers.items()), None if body is msgspec.UNSET else body)


def _is_stream(target: str) -> bool:
    path, _, query = target.encode().partition(b"?")
    try:
        segment = first_segment(decode_path(path) + "/")
        return segment in NOT_BATCHED or (segment in SCANNED and "true" in query_values(query, "scan"))
    except Invalid:
        return False  # Its own answer says what is wrong with it.


def _first(given: str | msgspec.UnsetType, default: str | msgspec.UnsetType, otherwise: str) -> str:
    if given is not msgspec.UNSET:
        return given
    return otherwise if default is msgspec.UNSET else default


def _headers(given: msgspec.Raw | msgspec.UnsetType, which: str) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    if given is msgspec.UNSET:
        return headers
    if len(bytes(given)) > limits.HEADER_BYTES_MAX:
        raise TooLarge(f"the headers of {which} are larger than {limits.HEADER_BYTES_MAX} bytes")
    try:
        fields = _decode_headers(given)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Invalid(f"the headers of {which} are not an object of strings", code="bad_batch") from None
    for name, value in fields.items():
        lower = name.lower()
        if lower not in HEADERS:
            raise Invalid(
                f"{which} has a header that is not one of {', '.join(sorted(HEADERS))}", code="bad_batch"
            )
        if not _VALUE.fullmatch(value):
            raise Invalid(f"a header of {which} holds more than printable ASCII", code="bad_batch")
        if lower.encode() in headers:
            raise Invalid(f"a header of {which} is repeated", code="bad_batch")
        headers[lower.encode()] = value.strip(" \t").encode()
    return headers


def lane_of(method: str, target: str) -> Lane | None:
    """Return the one entity that a request concerns; None where it is not just one, or malformed."""
    raw, _, query = target.partition("?")
    try:
        if raw.startswith(ENTITY):
            # A PUT names its entities in its body.
            if method in ("GET", "HEAD", "DELETE"):
                return decode_path(raw.encode())[len(ENTITY) :], entity_key(query.encode())
        elif raw.startswith(_ENTITIES):
            # A slash inside of a key is escaped, so it is looked for before decoding.
            schema_id, slash, key = raw[len(_ENTITIES) :].partition("/")
            if slash and key and "/" not in key:
                return decode_path(schema_id.encode()), decode_path(key.encode())
    except Invalid:
        pass
    return None


def rounds(lanes: Sequence[Lane | None]) -> Iterable[list[list[int]]]:
    """Order the requests of a batch: rounds one after the other, in each lanes beside each other.

    The numbers of a lane are served in order. A request that does not concern just one entity is
    a round of its own: all before it have ended, and none behind it has begun.
    """
    present: dict[Lane, list[int]] = {}
    for number, lane in enumerate(lanes):
        if lane is not None:
            present.setdefault(lane, []).append(number)
            continue
        if present:
            yield list(present.values())
            present = {}
        yield [[number]]
    if present:
        yield list(present.values())


def response(
    status: int, target: str, headers: Headers, body: bytes | None, *, omitted: bool = False
) -> BatchedResponse:
    """Describe one answer; ``body`` None: it was left out."""
    fields: dict[str, str] = {}
    for name, value in headers:
        text, shown = name.decode("latin-1"), value.decode("latin-1")
        if text not in _HOP_BY_HOP:
            fields[text] = f"{fields[text]}, {shown}" if text in fields else shown
    return BatchedResponse(status, target, fields, _shown(fields.get("content-type", ""), body), omitted)


def _shown(content_type: str, body: bytes | None) -> msgspec.Raw:
    if not body:
        return msgspec.Raw(b"null")
    media_type = content_type.partition(";")[0].strip()
    if media_type == "application/json" or media_type.endswith("+json"):
        return msgspec.Raw(body)
    return msgspec.Raw(msgspec.json.encode(body.decode(errors="replace")))
