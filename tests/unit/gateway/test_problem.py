import json
from collections.abc import Iterator

import pytest

from deltadatabase import errors
from deltadatabase.errors import DeltaError, Issue
from deltadatabase.gateway.problem import problem, status_of

EXPECTED = {
    "DeltaError": 500,
    "Invalid": 400,
    "TooLarge": 413,
    "UnsupportedMediaType": 415,
    "MethodNotAllowed": 405,
    "RequestTimeout": 408,
    "Unauthenticated": 401,
    "Denied": 403,
    "NotFound": 404,
    "Unprocessable": 422,
    "PreconditionRequired": 428,
    "Gone": 410,
    "Conflict": 409,
    "AlreadyExists": 412,
    "VersionMismatch": 412,
    "RateLimited": 429,
    "Overloaded": 503,
    "Unavailable": 503,
    "NotOwner": 503,
    "StoreFull": 507,
    "OutcomeUnknown": 504,
    "LinkLost": 504,
    "PartlyApplied": 507,
    "Corrupt": 500,
    "Internal": 500,
    "StartupError": 500,
}


def tree(root: type[DeltaError] = DeltaError) -> Iterator[type[DeltaError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def example(cls: type[DeltaError]) -> DeltaError:
    if cls is errors.PartlyApplied:
        cause = errors.StoreFull("no room")
        return errors.PartlyApplied("stored in part", outcomes={"a": 1, "b": "store_full"}, cause=cause)
    if cls is errors.MethodNotAllowed:
        return errors.MethodNotAllowed("no", allow=("GET", "HEAD"))
    return cls("a reason")


@pytest.mark.parametrize("cls", list(tree()), ids=lambda cls: cls.__name__)
def test_every_kind_of_error_has_its_status_and_the_members_of_a_problem(cls: type[DeltaError]) -> None:
    answer = problem(example(cls), "r1")
    document = json.loads(answer.body)
    assert answer.status == document["status"] == EXPECTED[cls.__name__]
    assert document["type"] == f"urn:deltadatabase:error:{document['error']}"
    assert document["title"]
    assert document["request_id"] == "r1"
    assert dict(answer.headers)[b"content-type"] == b"application/problem+json"


def headers_of(error: DeltaError) -> dict[bytes, bytes]:
    return dict(problem(error, "").headers)


def test_what_is_internal_appears_as_its_public_kind() -> None:
    assert json.loads(problem(errors.LinkLost("x"), "").body)["error"] == "outcome_unknown"
    assert json.loads(problem(errors.NotOwner("x"), "").body)["error"] == "unavailable"
    assert json.loads(problem(errors.StartupError("x", code="locked"), "").body)["error"] == "internal"


@pytest.mark.parametrize(("wait_s", "header"), [(0.2, b"1"), (1.0, b"1"), (1.2, b"2"), (None, b"1")])
def test_retry_after_is_a_whole_number_of_seconds_of_at_least_one(
    wait_s: float | None, header: bytes
) -> None:
    assert headers_of(errors.Overloaded("full", retry_after_s=wait_s))[b"retry-after"] == header


def test_a_504_does_not_invite_to_repeat() -> None:
    assert b"retry-after" not in headers_of(errors.OutcomeUnknown("maybe"))


def test_a_failed_condition_tells_the_current_etag() -> None:
    assert headers_of(errors.VersionMismatch("changed", etag='"3-ab"'))[b"etag"] == b'"3-ab"'


def test_a_401_names_the_scheme() -> None:
    assert headers_of(errors.Unauthenticated("who?"))[b"www-authenticate"].startswith(b"Bearer")


def test_a_refused_method_lists_the_served_ones() -> None:
    assert headers_of(errors.MethodNotAllowed("no", allow=("GET", "HEAD")))[b"allow"] == b"GET, HEAD"


def test_a_schema_refusal_lists_its_reasons() -> None:
    issue = Issue("/age", "type", "is not an integer")
    document = json.loads(problem(errors.Invalid("refused", issues=(issue,)), "").body)
    assert document["errors"] == [{"pointer": "/age", "keyword": "type", "detail": "is not an integer"}]


def test_a_write_stored_in_part_lists_its_outcomes() -> None:
    document = json.loads(problem(example(errors.PartlyApplied), "").body)
    assert document["outcomes"] == {"a": 1, "b": "store_full"}
    assert document["error"] == "partly_applied"


def test_a_write_stored_in_part_has_the_status_and_advice_of_its_cause() -> None:
    cause = errors.Unavailable("store down", retry_after_s=4)
    error = errors.PartlyApplied("stored in part", outcomes={"a": "unavailable"}, cause=cause)
    assert status_of(error) == 503
    assert headers_of(error)[b"retry-after"] == b"4"


def test_headers_that_are_too_large_have_a_status_of_their_own() -> None:
    assert status_of(errors.TooLarge("x", code="headers_too_large")) == 431
