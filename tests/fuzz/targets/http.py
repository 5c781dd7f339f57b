"""Requests: their head alone, and whole ones through every layer down to the stored object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from urllib.parse import quote

from unit.gateway.rest_fakes import Reply, exchange

from deltadatabase import limits
from deltadatabase.errors import Denied, Invalid, VersionMismatch
from deltadatabase.gateway import conditions, request
from deltadatabase.gateway.entity import entity_key
from deltadatabase.model import Result
from deltadatabase.storage.paths import check_schema_id
from fuzz.engine import Target, Wrong
from fuzz.mutate import bytes_changed, json_change
from fuzz.targets.stack import ADMIN_KEY, Stack

Fields = list[tuple[bytes, bytes]]

RESTART_EVERY = 300
PATHS = (
    "/entity/notes", "/entity/chat.v1", "/entity/", "/entity/..", "/schema/notes", "/schemas/notes",
    "/admin/schemas", "/api/schemas", "/api/login", "/api/me", "/api/keys", "/api/keys/0011",
    "/admin/workers", "/admin/store", "/health", "/livez", "/readyz", "/openapi.json", "/docs", "/", "*", "",
    "/entities/notes/first", "/entities/notes/a%2Fb/../c", "/entities/notes/", "/entities//x",
)  # fmt: skip
QUERIES = ("", "?key=a", "?key=first", "?key=%C3%BC", "?key=a&key=b", "?key=", "?", "?key=%2e%2e", "?x=%00")
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "X")
HEADERS = (
    b"if-none-match: *", b'if-none-match: W/"1-aa", "2"', b"host: localhost", b"origin: http://[::1]:80",
    b"content-length: 3", b"transfer-encoding: chunked", b"expect: 100-continue", b"x-request-id: abc",
    b"content-type: text/xml", b"accept-encoding: gzip", b"authorization: Bearer wrong",
    b"if-match: *", b'if-match: "1-aa", W/"2"', b"if-modified-since: Tue, 14 Nov 2023 22:13:20 GMT",
    b"content-type: application/merge-patch+json", b"content-type: application/json-patch+json",
    b"idempotency-key: n", b'idempotency-key: "a\\"b"', b"prefer: return=minimal",
)  # fmt: skip
WORDS = (
    "key", "client_id", "name", "permissions", "expires_in", "schemas", "read", "write", "admin", "24h", "7d",
    "chat.*", "*", "type", "object", "required", "text", "first", "_meta", "$ref", "properties", ADMIN_KEY,
)  # fmt: skip
BODIES = (
    b"", b'{"first": {"text": "hello"}}', b'{"a": 1, "_meta": [2]}',
    b'{"type": "object", "required": ["text"]}',
    b'{"key": "%s"}' % ADMIN_KEY.encode(), b'{"client_id": "me"}',
    b'{"name": "ci", "permissions": ["read", "write"], "expires_in": "7d", "schemas": ["chat.*"]}', b"true",
)  # fmt: skip
_CALLS = tuple(
    f"{method} {path}{query}\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n".encode() + body
    for method, path, query, body in (
        ("GET", "/entity/notes", "?key=first", b""),
        ("PUT", "/entity/notes", "", BODIES[1]),
        ("PUT", "/entity/notes", "", BODIES[2]),
        ("DELETE", "/entity/notes", "?key=first", b""),
        ("PUT", "/schema/notes", "", BODIES[3]),
        ("POST", "/schemas/notes", "", BODIES[7]),
        ("GET", "/schema/notes", "", b""),
        ("DELETE", "/schema/notes", "", b""),
        ("POST", "/api/login", "", BODIES[4]),
        ("POST", "/api/login", "", BODIES[5]),
        ("POST", "/api/keys", "", BODIES[6]),
        ("DELETE", "/api/keys/0011", "", b""),
        *(("GET", path, "", b"") for path in PATHS[6:19]),
    )
)
_RESOURCES = tuple(
    f"{method} /entities/notes/first\r\nauthorization: Bearer {ADMIN_KEY}\r\n{headers}\r\n".encode() + body
    for method, headers, body in (
        ("PUT", "if-none-match: *\r\nidempotency-key: n\r\n", b'{"text": "hello"}'),
        ("PUT", 'if-match: "1-aa"\r\n', b'{"text": "hello"}'),
        ("GET", "if-modified-since: Tue, 14 Nov 2023 22:13:20 GMT\r\n", b""),
        ("PATCH", "content-type: application/merge-patch+json\r\nprefer: return=minimal\r\n", b'{"a": null}'),
        (
            "PATCH",
            'content-type: application/json-patch+json\r\nidempotency-key: "n"\r\n',
            b'[{"op": "add", "path": "/a", "value": 1}]',
        ),
        ("DELETE", "idempotency-key: d\r\n", b""),
    )
)

_CONDITIONAL = f"GET /entity/notes?key=first\r\nauthorization: Bearer {ADMIN_KEY}\r\nif-none-match: "
SEEDS = (
    *_CALLS,
    *_RESOURCES,
    *(f"{_CONDITIONAL}{tags}\r\n\r\n".encode() for tags in ("*", '"1-aa"', 'W/"1-aa", "2"')),
)

_json_changed = json_change(WORDS)


def changed(random: Random, data: bytes, other: bytes) -> bytes:
    """Change one part of a request, or its bytes."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    match random.randrange(9):
        case 0:
            return bytes_changed(random, data, other)
        case 1 | 2:
            body = _json_changed(random, body, other.partition(b"\r\n\r\n")[2])
        case 3:
            _method, _, target = lines[0].partition(b" ")
            lines[0] = random.choice(METHODS).encode() + b" " + target
        case 4:
            lines[0] = lines[0].partition(b" ")[0] + b" " + _target(random)
        case 5:
            lines[0] = bytes_changed(random, lines[0], other)
        case 6:
            lines.insert(random.randrange(1, len(lines) + 1), random.choice(HEADERS))
        case 7 if len(lines) > 1:
            at = random.randrange(1, len(lines))
            if random.random() < 0.5:
                del lines[at]
            else:
                lines[at] = bytes_changed(random, lines[at], other)
        case _:
            body = random.choice(BODIES)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _target(random: Random) -> bytes:
    return (random.choice(PATHS) + random.choice(QUERIES)).encode()


def scope_of(data: bytes) -> tuple[dict[str, object], bytes]:
    """A scope as the server below makes it of these bytes, however odd, and the body."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, _, target = first.partition(b" ")
    path, _, query = target.partition(b"?")
    fields: Fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append((name.strip().lower(), value.strip()))
    if body and not any(name in (b"content-length", b"transfer-encoding") for name, _ in fields):
        fields.append((b"content-length", b"%d" % len(body)))
    scope: dict[str, object] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.decode("latin-1"),
        "scheme": "http",
        "path": path.decode(errors="replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": fields,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
    return scope, body


def check_head(data: bytes) -> None:
    """The head, query, ETags and dev mode's own check."""
    scope, _ = scope_of(data)
    headers: Fields = scope["headers"]  # type: ignore[assignment]
    name = request.request_id_of(headers, lambda: "made")
    if not (name.isascii() and name.isprintable() and 0 < len(name) <= limits.REQUEST_ID_BYTES_MAX):
        raise Wrong("a request id that must not get into a log line")
    try:
        head = request.examine(scope)  # type: ignore[arg-type]
    except Invalid:
        return
    if "\0" in head.path or request.decode_path(quote(head.path, safe="").encode()) != head.path:
        raise Wrong("the path is not what it says when it is escaped again")
    etags = request.etags(head.fields.get(b"if-none-match"))
    if etags is not None and etags != ("*",):
        again = request.etags(", ".join(etags).encode("latin-1"))
        if again != etags:
            raise Wrong("etags do not survive their own notation")
    try:
        request.check_local(head.fields)
    except Denied:
        pass
    try:
        key = entity_key(head.query)
        check_schema_id(head.path.removeprefix("/entity/"))
    except Invalid:
        return
    if "/" in key or ".." in key or "\0" in key:
        raise Wrong("a key that is not served here was accepted")


def request_head(_folder: Path) -> Target:
    return Target("request-head", check_head, SEEDS, changed)


def check_conditions(data: bytes) -> None:
    """What the headers of ``/entities`` ask for."""
    scope, _ = scope_of(data)
    fields = dict(scope["headers"])  # type: ignore[call-overload]
    for parse in (conditions.check_document_type, conditions.patch_kind, conditions.preference):
        try:
            parse(fields)
        except Invalid:
            pass
    try:
        key = conditions.idempotency_key(fields)
    except Invalid:
        key = None
    if key is not None:
        quoted = b'"' + key.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
        if conditions.idempotency_key({b"idempotency-key": quoted}) != key:
            raise Wrong("an idempotency key does not survive its own notation")
    try:
        wanted = conditions.conditions_of(fields)
    except Invalid:
        return
    for name, tags in ((b"if-match", wanted.if_match), (b"if-none-match", wanted.if_none_match)):
        if (tags is None) != (name not in fields):
            raise Wrong("a condition was made up, or lost")
        if tags:
            again = conditions.conditions_of({name: ", ".join(tags).encode("latin-1")})
            if tags not in (again.if_match, again.if_none_match):
                raise Wrong("etags do not survive their own notation")
    try:
        conditions.check_read(fields, wanted, _READ)
    except VersionMismatch:
        if wanted.hold(_READ.etag) and b"if-unmodified-since" not in fields:
            raise Wrong("a condition that holds was refused") from None


_READ = Result(version=1, etag='"1-aa"', updated_ms=1_700_000_000_000, document=b"1")


def request_conditions(_folder: Path) -> Target:
    return Target("conditions", check_conditions, SEEDS, changed)


def judge(reply: Reply, method: str) -> None:
    """Whether an answer is one of those that the API has."""
    if reply.status == 500:
        raise Wrong(f"answered 500: {reply.body[:300]!r}")
    if reply.status < 200 or reply.status > 599:
        raise Wrong(f"answered {reply.status}")
    if reply.status >= 400 and method != "HEAD":
        if reply.headers.get("content-type") != "application/problem+json":
            raise Wrong(f"a {reply.status} that is no problem document")
        problem = json.loads(reply.body)
        if problem["status"] != reply.status or not problem["error"] or not problem["detail"]:
            raise Wrong("a problem document without its members")
    if method == "HEAD" and reply.body:
        raise Wrong("an answer to HEAD with a body")
    if not reply.headers.get("x-request-id", "").isascii():
        raise Wrong("an answer without its id")


def rest(folder: Path) -> Target:
    """Whole requests: edge, routes, router, engine, schemas, envelope, store in memory."""
    stack = Stack(folder)
    count = 0

    def check(data: bytes) -> None:
        nonlocal count
        count += 1
        if count % RESTART_EVERY == 0:
            stack.restart()
        scope, body = scope_of(data)
        chunks: Sequence[bytes] = [body] if len(body) < 20 else [body[:7], b"", body[7:]]
        method = str(scope["method"])  # the edge changes the scope
        judge(stack.loop.run(exchange(stack.app, scope, chunks)), method)

    return Target("rest", check, SEEDS, changed, stack.close)
