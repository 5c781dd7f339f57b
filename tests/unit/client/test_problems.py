from __future__ import annotations

import inspect

import pytest

from deltadatabase import errors
from deltadatabase.client.problems import error_of, of_response
from deltadatabase.client.requests import Failure, Request, Response
from deltadatabase.errors import DeltaError, Issue
from deltadatabase.gateway.problem import problem

GET = Request("GET", "/x")
PUT = Request("PUT", "/x")
# These appear to clients as another kind.
OURS = {
    errors.NotOwner: errors.Unavailable,
    errors.LinkLost: errors.OutcomeUnknown,
    errors.StartupError: errors.Internal,
    errors.MethodNotAllowed: errors.Invalid,
    DeltaError: errors.Internal,
}


def answered(error):
    answer = problem(error, "r-17")
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.status, headers, bytes(answer.body))


def every_kind():
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, DeltaError) and kind not in {errors.PartlyApplied, errors.MethodNotAllowed}:
            yield kind


@pytest.mark.parametrize("kind", [*every_kind()])
def test_every_error_comes_back_as_what_it_was(kind):
    issue = Issue("/text", "type", "no string", key="a")
    told = of_response(answered(kind("because", etag='"3-a"', issues=(issue,))))
    assert type(told) is OURS.get(kind, kind)
    assert told.detail == "because"
    assert told.request_id == "r-17"
    assert told.etag == '"3-a"'
    assert told.issues == (issue,)
    assert told.status == answered(kind("because")).status
    expected = OURS.get(kind, kind)
    assert told.code == expected.default_code or told.code == kind.default_code


def test_a_write_of_several_tells_each_outcome():
    cause = errors.Unavailable("no worker", code="no_worker")
    told = of_response(
        answered(errors.PartlyApplied("half", outcomes={"a": 3, "b": "no_worker"}, cause=cause))
    )
    assert isinstance(told, errors.PartlyApplied)
    assert told.outcomes == {"a": 3, "b": "no_worker"}
    assert isinstance(told.cause, errors.Unavailable)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, errors.Invalid),
        (308, errors.Invalid),
        (400, errors.Internal),
        (404, errors.NotFound),
        (418, errors.Internal),
        (500, errors.Internal),
        (502, errors.OutcomeUnknown),
        (503, errors.Unavailable),
        (504, errors.OutcomeUnknown),
    ],
)
def test_answers_of_others_on_the_way_are_told_by_their_status(status, kind):
    for body in (b"", b"<html>", b"[1]", b'{"detail": 1}'):
        assert type(of_response(Response(status, {}, body))) is kind


def test_good_answers_are_no_errors():
    for status in (200, 201, 204, 304):
        assert error_of(GET, Response(status, {})) is None


def test_a_missing_answer_is_unknown_only_where_something_may_have_changed():
    assert type(error_of(PUT, Failure(sent=True))) is errors.OutcomeUnknown
    assert type(error_of(GET, Failure(sent=True))) is errors.Unavailable
    for request in (GET, PUT):
        missing = error_of(request, Failure(sent=False))
        assert type(missing) is errors.Unavailable and missing.code == "unreachable"
        assert error_of(request, Failure(sent=False, untrusted=True)).code == "untrusted"


@pytest.mark.parametrize("text", ["-1", "soon", "1e9", ""])
def test_a_strange_retry_after_is_ignored(text):
    told = of_response(Response(503, {"retry-after": text}, b"{}"))
    assert told.retry_after_s == errors.Unavailable.default_retry_after_s
