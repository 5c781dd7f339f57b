import re

import msgspec
import pytest

from deltadatabase.auth.accounts import Accounts
from deltadatabase.gateway import exporting, importing, listing, resources
from deltadatabase.gateway.auditing import RequestAudit
from deltadatabase.gateway.batching import Batches
from deltadatabase.gateway.entity import METHODS, PREFIX
from deltadatabase.gateway.metrics import CHANGES_ROUTE, RESOURCE_ROUTE
from deltadatabase.gateway.openapi import OPERATIONS, document
from deltadatabase.gateway.routes import (
    admin,
    batch,
    documentation,
    health,
    keys,
    logs,
    rotation,
    schemas,
    session,
)
from deltadatabase.gateway.scan import Scans
from unit.gateway.rest_fakes import Client, FakeDatabase

UNDESCRIBED = {("GET", "/"), ("GET", "/docs")}


def routed(database: FakeDatabase, accounts: Accounts) -> set[tuple[str, str]]:
    events = object.__new__(RequestAudit)  # never told
    handlers = [
        *health.handlers(database, "1"),
        *session.handlers(accounts, events),
        *keys.handlers(accounts, events),
        *schemas.handlers(
            database,
            database,
            accounts,
            events,
            scans=object.__new__(Scans),
            body_bytes_max=1,
            public=False,
        ),
        *admin.handlers(database, accounts),
        *logs.handlers(accounts, events),
        *batch.handlers(Batches(), accounts),
        *rotation.handlers(database.rotation, accounts, events),
        *documentation.handlers("1", database, accounts, public_schemas=False),
    ]
    found = {(method, PREFIX + "{schema_id}") for method in METHODS if method != "HEAD"}
    found |= {(method, RESOURCE_ROUTE) for method in resources.METHODS}
    found.add(("GET", CHANGES_ROUTE))
    found |= {("POST", importing.ROUTE), ("GET", exporting.ROUTE)}
    found |= {(method, listing.PREFIX + "{schema_id}") for method in listing.METHODS if method != "HEAD"}
    for handler in handlers:
        for path in handler.paths:
            found |= {(str(method), re.sub(r":\w+}", "}", path)) for method in handler.http_methods}
    return found


def test_every_route_is_described_and_nothing_else(database: FakeDatabase) -> None:
    accounts = object.__new__(Accounts)  # never asked
    described = {(operation.method, operation.path) for operation in OPERATIONS}
    assert len(described) == len(OPERATIONS)
    assert routed(database, accounts) == described | UNDESCRIBED


def test_every_reference_leads_somewhere_and_every_shape_is_used() -> None:
    text = msgspec.json.encode(document("1")).decode()
    referred = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert referred == set(document("1")["components"]["schemas"])


def test_operation_ids_are_unique() -> None:
    ids = [op["operationId"] for path in document("1")["paths"].values() for op in path.values()]
    assert len(set(ids)) == len(ids)


def test_credentials_are_asked_for_where_a_right_is_needed() -> None:
    for operation in OPERATIONS:
        described = document("1")["paths"][operation.path][operation.method.lower()]
        assert (described.get("security") == []) == (operation.permission is None)
        assert ("401" in described["responses"]) or operation.permission is None
        needs_a_right = operation.permission not in (None, "any") or 403 in operation.errors
        assert ("403" in described["responses"]) == needs_a_right


def test_public_schemas_are_described_as_open() -> None:
    paths = document("1", public_schemas=True)["paths"]
    assert paths["/schema/{schema_id}"]["get"]["security"] == []
    assert paths["/admin/schemas"]["get"]["security"] == []
    assert "security" not in paths["/api/schemas"]["get"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: f"{op.method} {op.path}")
async def test_the_examples_work(client: Client, operation: object) -> None:
    assert operation in OPERATIONS
    paths = document("1")["paths"]
    await _send(client, "put", "/schema/{schema_id}", paths)
    await _send(client, "put", "/entity/{schema_id}", paths)
    method, path = operation.method.lower(), operation.path  # type: ignore[attr-defined]
    reply = await _send(client, method, path, paths)
    if path in ("/api/login", "/api/keys/{key_id}"):
        # These two name a key that only the reader can fill in.
        assert str(reply.status) in paths[path][method]["responses"]
    else:
        assert reply.status == operation.status  # type: ignore[attr-defined]


async def _send(client: Client, method: str, path: str, paths):  # type: ignore[no-untyped-def]
    described = paths[path][method]
    target, query = path, []
    for parameter in described.get("parameters", []):
        example = parameter.get("example")
        if parameter["in"] == "path":
            target = target.replace("{" + parameter["name"] + "}", example)
        elif parameter["in"] == "query" and example is not None:
            query.append(f"{parameter['name']}={example}")
    sent, headers = None, []
    if "requestBody" in described:
        media_type, content = next(iter(described["requestBody"]["content"].items()))
        example = content["example"]
        sent = example.encode() if isinstance(example, str) else msgspec.json.encode(example)
        headers = [("content-type", media_type)]
    target += "?" + "&".join(query) if query else ""
    return await client(method.upper(), target, sent, headers=headers)
