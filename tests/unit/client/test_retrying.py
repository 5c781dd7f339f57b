from __future__ import annotations

import pytest

from deltadatabase import errors
from deltadatabase.client import calls
from deltadatabase.client.calls import Call
from deltadatabase.client.requests import Failure, Request
from deltadatabase.client.retrying import wait_s
from deltadatabase.client.steps import single
from unit.client.driving import Driver, ok, refused

TORN = Failure(sent=True)
AWAY = Failure(sent=False)
ETAG = '"1-00000000"'
DONE = ok(etag=ETAG)
READ = calls.get("notes", "a", as_=bytes)
WRITE = calls.put("notes", "a", 1)
POST = Call(Request("POST", "/api/keys"), lambda response: response.status)


@pytest.mark.parametrize("trouble", [AWAY, refused(503), refused(429), refused(503, "overloaded")])
@pytest.mark.parametrize("call", [READ, WRITE, POST])
def test_what_certainly_changed_nothing_is_sent_again(call, trouble):
    driver = Driver(trouble, trouble, DONE)
    driver.run(single(call, driver.means))
    assert len(driver.requests) == 3


@pytest.mark.parametrize("trouble", [TORN, refused(504), refused(502)])
@pytest.mark.parametrize("call", [READ, WRITE])
def test_reads_and_writes_with_a_name_are_sent_again_whatever_became_of_them(call, trouble):
    driver = Driver(trouble, DONE)
    driver.run(single(call, driver.means))
    first, second = driver.requests
    assert first == second


@pytest.mark.parametrize("trouble", [TORN, refused(504)])
def test_what_may_have_been_done_and_has_no_name_is_never_sent_again(trouble):
    driver = Driver(trouble)
    with pytest.raises(errors.OutcomeUnknown):
        driver.run(single(POST, driver.means))


def test_every_write_of_entities_gets_a_name_of_its_own():
    names = set()
    for call in (WRITE, WRITE, calls.patch("notes", "a", {}), calls.delete("notes", "a")):
        driver = Driver(DONE)
        driver.run(single(call, driver.means))
        names.add(driver.requests[0].headers["idempotency-key"])
        driver.means = Driver().means
    driver = Driver(DONE, DONE)
    for _ in range(2):
        driver.run(single(WRITE, driver.means))
    one, two = (request.headers["idempotency-key"] for request in driver.requests)
    assert one != two
    driver = Driver(DONE)
    driver.run(single(calls.put("notes", "a", 1, idempotency_key="mine"), driver.means))
    assert driver.requests[0].headers["idempotency-key"] == '"mine"'


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 412, 413, 422, 428, 500, 507, 301])
@pytest.mark.parametrize("call", [READ, WRITE, POST])
def test_refusals_are_final(call, status):
    driver = Driver(refused(status))
    with pytest.raises(errors.DeltaError):
        driver.run(single(call, driver.means))
    assert driver.slept == []


def test_a_certificate_that_is_not_trusted_is_final():
    driver = Driver(Failure(sent=False, untrusted=True))
    with pytest.raises(errors.Unavailable) as caught:
        driver.run(single(READ, driver.means))
    assert caught.value.code == "untrusted"


def test_time_is_bounded_and_the_last_error_is_told():
    driver = Driver(*[refused(503, "no_worker")] * 1000)
    with pytest.raises(errors.Unavailable) as caught:
        driver.run(single(READ, driver.means))
    assert caught.value.code == "no_worker"
    assert 50 < sum(driver.slept) <= 60
    assert 10 < len(driver.requests) < 30


def test_without_patience_everything_is_sent_once():
    driver = Driver(AWAY, give_up_after_s=0.0)
    with pytest.raises(errors.Unavailable):
        driver.run(single(READ, driver.means))


def test_a_server_that_says_when_is_left_alone_until_then():
    driver = Driver(refused(503, retry_after="7"), DONE)
    driver.run(single(READ, driver.means))
    assert 7 <= driver.slept[0] < 8


def test_a_server_that_wants_more_time_than_there_is_is_not_waited_for():
    driver = Driver(refused(429, retry_after="3600"))
    with pytest.raises(errors.RateLimited) as caught:
        driver.run(single(READ, driver.means))
    assert caught.value.retry_after_s == 3600
    assert driver.slept == []


def test_waiting_grows_up_to_a_bound_and_is_spread():
    error = errors.Unavailable("away")
    longest = [wait_s(attempt, error, 1.0) for attempt in range(1, 2000)]
    assert longest == sorted(longest) and longest[-1] == 5.0
    assert wait_s(3, error, 0.0) < wait_s(3, error, 1.0)


@pytest.mark.parametrize("last", [AWAY, refused(503), refused(401), refused(400, "document_refused")])
def test_an_unknown_outcome_outweighs_what_is_learned_later(last):
    driver = Driver(TORN, *[last] * 100)
    with pytest.raises(errors.OutcomeUnknown):
        driver.run(single(WRITE, driver.means))


@pytest.mark.parametrize(
    ("status", "kind"), [(404, errors.NotFound), (412, errors.VersionMismatch), (422, errors.Unprocessable)]
)
def test_a_verdict_on_the_write_itself_ends_the_doubt(status, kind):
    driver = Driver(TORN, refused(status))
    with pytest.raises(kind):
        driver.run(single(WRITE, driver.means))


def test_a_server_that_forgot_the_name_leaves_the_doubt():
    driver = Driver(TORN, refused(409, "idempotency_key_forgotten"))
    with pytest.raises(errors.OutcomeUnknown) as caught:
        driver.run(single(WRITE, driver.means))
    assert caught.value.code == "idempotency_key_forgotten"


def test_a_read_has_no_unknown_outcome():
    driver = Driver(TORN, give_up_after_s=0.0)
    with pytest.raises(errors.Unavailable):
        driver.run(single(READ, driver.means))
