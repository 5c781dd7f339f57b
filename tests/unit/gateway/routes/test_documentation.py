import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from deltadatabase import limits
from unit.gateway.rest_fakes import Client, FakeDatabase


async def test_the_root_leads_to_the_documentation(client: Client) -> None:
    reply = await client("GET", "/", key=None)
    assert (reply.status, reply.headers["location"]) == (302, "/docs")


async def test_the_description_is_served(client: Client) -> None:
    reply = await client("GET", "/openapi.json", key=None)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json()["info"]["version"] == "1.2.3"


async def test_the_page_runs_nothing_and_loads_nothing(client: Client) -> None:
    reply = await client("GET", "/docs", key=None)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    links: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "img", "iframe")
            links.extend(value or "" for name, value in attrs if name in ("href", "src"))

    Reader().feed(reply.body.decode())
    assert {link for link in links if not link.startswith("#")} == {"/openapi.json"}
    assert not re.search(r"url\(|@import", reply.body.decode())


SCHEMAS = {
    "chat.v1": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "id": "http://x.example/",
        "definitions": {"message": {"type": "object", "properties": {"reply": {"$ref": "#"}}}},
        "properties": {"messages": {"items": {"$ref": "#/definitions/message"}, "default": 7}},
    },
    "Problem": {"type": "object", "discriminator": 7},
    "Problem_": False,
    "never": True,
}


async def _put(client: Client, schemas: Mapping[str, object]) -> None:
    for schema_id, schema in schemas.items():
        assert (await client("PUT", f"/schema/{schema_id}", msgspec.json.encode(schema))).status == 200


async def test_the_description_is_valid(client: Client) -> None:
    validate((await client("GET", "/openapi.json")).json(), cls=OpenAPIV31SpecValidator)


async def test_stored_schemas_are_components_with_paths_of_their_own(client: Client) -> None:
    await _put(client, SCHEMAS)
    reply = await client("GET", "/openapi.json?schemas=true")
    api = reply.json()
    validate(api, cls=OpenAPIV31SpecValidator)
    plain = (await client("GET", "/openapi.json?schemas=false")).json()
    added = {
        name: shape
        for name, shape in api["components"]["schemas"].items()
        if name not in plain["components"]["schemas"]
    }
    assert set(added) == {"chat.v1", "Problem__", "Problem_", "never"}
    assert added["chat.v1"]["properties"]["messages"]["items"] == {
        "$ref": "#/components/schemas/chat.v1/$defs/message"
    }
    assert api["components"]["schemas"]["Problem"] == plain["components"]["schemas"]["Problem"]
    typed = api["paths"]["/entity/chat.v1"]
    shape = {"$ref": "#/components/schemas/chat.v1"}
    assert typed["get"]["responses"]["200"]["content"]["application/json"] == {"schema": shape}
    assert api["paths"]["/entity/Problem"]["get"]["responses"]["200"]["content"]["application/json"] == {
        "schema": {"$ref": "#/components/schemas/Problem__"}
    }
    ids = [operation["operationId"] for path in api["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert "x-schemas-left-out" not in api["info"]


async def test_who_may_read_stored_schemas_may_have_them_described(client: Client) -> None:
    await _put(client, {"chat.v1": True, "users": True})
    wish = {"name": "n", "permissions": ["read"], "schemas": ["chat.*"]}
    limited, writer = [
        (await client("POST", "/api/keys", msgspec.json.encode(body))).json()["secret"]
        for body in (wish, {"name": "n", "permissions": ["write"]})
    ]
    assert (await client("GET", "/openapi.json?schemas=true", key=None)).status == 401
    assert (await client("GET", "/openapi.json?schemas=true", key=writer)).status == 403
    paths = (await client("GET", "/openapi.json?schemas=true", key=limited)).json()["paths"]
    assert "/entity/chat.v1" in paths
    assert "users" not in str(paths)


async def test_public_schemas_are_described_to_anybody(make_client: Callable[..., Client]) -> None:
    client = make_client(public_schemas=True)
    await _put(client, {"users": True})
    reply = await client("GET", "/openapi.json?schemas=true", key=None)
    assert (reply.status, "/entity/users" in reply.json()["paths"]) == (200, True)


async def test_what_is_not_described_is_counted(client: Client, database: FakeDatabase) -> None:
    # An S3 client may have put anything there, and any number of it.
    database.schemas = {f"s{i:04}": b"true" for i in range(limits.DESCRIBED_SCHEMAS_MAX + 5)}
    database.schemas["s0000"] = b'{"type": 3}'
    info = (await client("GET", "/openapi.json?schemas=true")).json()["info"]
    assert info["x-schemas-left-out"] == 6
    assert "6 of the stored schemas" in info["description"]
    third = limits.DESCRIBED_SCHEMAS_BYTES_MAX // 3
    database.schemas = {f"s{i}": b'{"description":"%s"}' % (b"x" * third) for i in range(4)}
    api = (await client("GET", "/openapi.json?schemas=true")).json()
    assert (api["info"]["x-schemas-left-out"], "/entity/s1" in api["paths"]) == (2, True)


@pytest.mark.parametrize("query", ["schemas=1", "schemas=", "schemas", "schemas=true&schemas=true"])
async def test_another_wish_is_400(client: Client, query: str) -> None:
    reply = await client("GET", "/openapi.json?" + query, key=None)
    assert (reply.status, reply.json()["error"]) == (400, "bad_query")
    assert (await client("GET", "/openapi.json?other=1", key=None)).status == 200
