from __future__ import annotations

import pytest

from unit.gateway.rest_fakes import Client, FakeDatabase

PATH = "/admin/rotation"


async def test_an_admin_looks_begins_counts_and_pauses(client: Client, database: FakeDatabase) -> None:
    assert (await client("GET", PATH)).json()["progress"]["phase"] == "idle"
    for body in (None, b"{}", b'{"dry_run": false}'):
        assert (await client("POST", PATH, body)).status == 202
    assert (await client("POST", PATH, b'{"dry_run": true}')).status == 202
    assert (await client("DELETE", PATH)).status == 200
    assert database.rotation.told == ["start", "start", "start", "count", "pause"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"dry_run": 1}', b'{"dryrun": true}'])
async def test_what_is_not_understood_begins_nothing(
    client: Client, database: FakeDatabase, body: bytes
) -> None:
    assert (await client("POST", PATH, body)).status == 400
    assert database.rotation.told == []


async def test_nobody_else_does(client: Client, database: FakeDatabase) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert (await client(method, PATH, key=None)).status == 401
    assert database.rotation.told == []
