"""JSON that two readers could understand differently."""

from __future__ import annotations

import httpx
import pytest

from security.attacker import ADMIN, ANSWER_S

pytestmark = pytest.mark.integration


def test_a_repeated_member_is_kept_as_sent_and_judged_by_its_last_value(guarded):
    with httpx.Client(base_url=guarded.url, headers=ADMIN, timeout=ANSWER_S) as client:
        schema = '{"properties": {"role": {"const": "guest"}}}'
        client.put("/schema/users", content=schema).raise_for_status()
        first = '{"role": "admin", "role": "guest"}'
        assert client.put("/entity/users", content=f'{{"a": {first}}}').status_code == 200
        assert client.get("/entity/users", params={"key": "a"}).text == first
        last = '{"role": "guest", "role": "admin"}'
        assert client.put("/entity/users", content=f'{{"b": {last}}}').status_code == 400
        assert client.get("/entity/users", params={"key": "b"}).status_code == 404


def test_a_key_that_is_sent_twice_in_one_body_is_written_once_with_its_last_document(guarded):
    with httpx.Client(base_url=guarded.url, headers=ADMIN, timeout=ANSWER_S) as client:
        answer = client.put("/entity/notes", content='{"a": 1, "a": 2}')
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "versions": {"a": 1}})
        assert client.get("/entity/notes", params={"key": "a"}).json() == 2
