from __future__ import annotations

import msgspec
import pytest

from deltadatabase import errors
from deltadatabase.client import calls
from deltadatabase.client.batching import batch, portions
from deltadatabase.client.requests import Failure
from unit.client.driving import Driver, ok


def answers(*responses):
    return ok(msgspec.json.encode({"responses": responses}))


def answer(status, body=None, **headers):
    return {"status": status, "path": "/", "headers": headers, "body": body}


def test_each_call_gets_its_own_result_or_error():
    asked = [calls.put("notes", "a", {"x": 1}), calls.get("notes", "b"), calls.delete("notes", "c")]
    problem = {"error": "entity_not_found", "detail": "no", "status": 404}
    driver = Driver(
        answers(answer(201, ETag='"1-a"'), answer(200, {"y": 2}, etag='"4-b"'), answer(404, problem))
    )
    put, got, missing = driver.run(batch(asked, driver.means))
    assert put.created and put.version == 1
    assert got.value == {"y": 2} and got.version == 4
    assert isinstance(missing, errors.NotFound) and missing.code == "entity_not_found"
    sent = msgspec.json.decode(driver.requests[0].body)["requests"]
    assert [each["method"] for each in sent] == ["PUT", "GET", "DELETE"]
    assert sent[0]["body"] == {"x": 1} and "body" not in sent[1]


def test_a_torn_batch_is_sent_again_with_the_same_names():
    asked = [calls.put("notes", "a", 1), calls.delete("notes", "b")]
    driver = Driver(Failure(sent=True), answers(answer(200), answer(204)))
    driver.run(batch(asked, driver.means))
    assert driver.requests[0] == driver.requests[1]
    names = [
        each["headers"]["idempotency-key"]
        for each in msgspec.json.decode(driver.requests[0].body)["requests"]
    ]
    assert len(set(names)) == 2


def test_after_a_torn_batch_no_call_is_said_to_have_certainly_failed():
    """The try that was torn may have applied what the next one is refused for."""
    asked = [calls.put("notes", "a", 1), calls.put("notes", "b", 1), calls.get("notes", "c")]
    refused = [
        answer(503, {"error": "no_worker", "detail": "no"}),
        answer(409, {"error": "idempotency_key_forgotten", "detail": "no"}),
        answer(503, {"error": "no_worker", "detail": "no"}),
    ]
    driver = Driver(Failure(sent=True), answers(*refused))
    put, forgotten, got = driver.run(batch(asked, driver.means))
    assert isinstance(put, errors.OutcomeUnknown) and not put.certain
    assert isinstance(forgotten, errors.OutcomeUnknown) and forgotten.code == "idempotency_key_forgotten"
    assert isinstance(got, errors.Unavailable)
    driver = Driver(answers(*refused))
    put, _, _ = driver.run(batch(asked, driver.means))
    assert put.certain


def test_a_torn_batch_with_calls_that_have_no_name_is_not_sent_again():
    asked = [calls.key_create("x", ["read"])]
    driver = Driver(Failure(sent=True))
    with pytest.raises(errors.OutcomeUnknown):
        driver.run(batch(asked, driver.means))


def test_requests_carry_what_they_may():
    many = [calls.get("notes", str(number)) for number in range(250)]
    assert [len(part) for part in portions(many)] == [100, 100, 50]
    large = [calls.put("notes", "a", "x" * 3_000_000)] * 5
    assert [len(part) for part in portions(large)] == [2, 2, 1]
    assert portions([]) == []


def test_text_that_is_no_json_cannot_break_the_others():
    driver = Driver()
    with pytest.raises(errors.Invalid) as caught:
        driver.run(batch([calls.put("notes", "a", b'1},{"method":"DELETE"')], driver.means))
    assert caught.value.code == "not_json"


def test_a_strange_answer_is_told():
    for body in (b"{}", b"[", b'{"responses":[]}'):
        driver = Driver(ok(body))
        with pytest.raises(errors.Internal):
            driver.run(batch([calls.get("notes", "a")], driver.means))
