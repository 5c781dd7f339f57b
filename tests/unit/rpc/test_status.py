from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from deltadatabase import errors
from deltadatabase.errors import DeltaError, Issue
from deltadatabase.rpc.pb import types_pb2 as pb
from deltadatabase.rpc.status import MAPPING, decode_error, encode_error, status_code

#: Raised only before a program serves, and only after the workers have answered.
NEVER_SENT = {errors.StartupError, errors.PartlyApplied}
#: What only HTTP tells apart from ``Invalid``.
COLLAPSED = {errors.UnsupportedMediaType, errors.MethodNotAllowed, errors.RequestTimeout}


def tree(cls: type[DeltaError]) -> Iterator[type[DeltaError]]:
    for subclass in cls.__subclasses__():
        # Classes that tests define are not part of the tree.
        if subclass.__module__ == errors.__name__:
            yield subclass
            yield from tree(subclass)


SENT = sorted(set(tree(DeltaError)) - NEVER_SENT, key=lambda cls: cls.__name__)


def made(cls: type[DeltaError]) -> DeltaError:
    if cls is errors.MethodNotAllowed:
        return errors.MethodNotAllowed("no such method", allow=("GET",))
    return cls(
        "what went wrong",
        code="a_code",
        retry_after_s=2.5,
        etag='"3-ab"',
        issues=(Issue("/a/0", "type", "is not a string"), Issue("", "required", "lacks a member")),
        term=2**40,
    )


def test_every_class_has_a_mapping() -> None:
    assert set(SENT) == set(MAPPING)


def test_every_kind_is_used() -> None:
    assert {kind for kind, _ in MAPPING.values()} == set(pb.ErrorKind.values()) - {0}


@pytest.mark.parametrize("cls", SENT)
def test_errors_survive_the_wire(cls: type[DeltaError]) -> None:
    error = made(cls)
    decoded = decode_error(pb.Error.FromString(encode_error(error).SerializeToString()))
    assert type(decoded) is (errors.Invalid if cls in COLLAPSED else cls)
    assert str(decoded) == str(error)
    fields = ("code", "detail", "retry_after_s", "etag", "issues", "term")
    assert [getattr(decoded, name) for name in fields] == [getattr(error, name) for name in fields]


@pytest.mark.parametrize("cls", [cls for cls in SENT if cls not in COLLAPSED])
def test_defaults_survive_the_wire(cls: type[DeltaError]) -> None:
    error = cls("what went wrong")
    assert vars(decode_error(encode_error(error))) == vars(error)


def test_the_shortest_wait_is_not_taken_for_none() -> None:
    assert decode_error(encode_error(errors.Overloaded("busy", retry_after_s=0.0))).retry_after_s == 0.001


@pytest.mark.parametrize("kind", [0, 999])
def test_an_unknown_kind_is_internal(kind: int) -> None:
    message = pb.Error(kind=kind, code="newer", detail="from a newer worker")  # type: ignore[arg-type]
    decoded = decode_error(message)
    assert type(decoded) is errors.Internal
    assert decoded.code == "newer"


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (errors.Invalid, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.TooLarge, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
        (errors.Denied, grpc.StatusCode.PERMISSION_DENIED),
        (errors.NotFound, grpc.StatusCode.NOT_FOUND),
        (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
        (errors.VersionMismatch, grpc.StatusCode.FAILED_PRECONDITION),
        (errors.NotOwner, grpc.StatusCode.ABORTED),
        (errors.RateLimited, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.Overloaded, grpc.StatusCode.UNAVAILABLE),
        (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
        (errors.OutcomeUnknown, grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.LinkLost, grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.Corrupt, grpc.StatusCode.DATA_LOSS),
        (errors.Internal, grpc.StatusCode.INTERNAL),
    ],
)
def test_status_of_unary_calls(cls: type[DeltaError], expected: grpc.StatusCode) -> None:
    assert status_code(cls("what went wrong")) is expected


def test_a_partly_applied_write_has_the_status_of_its_cause() -> None:
    error = errors.PartlyApplied("in part", outcomes={"a": 1}, cause=errors.StoreFull("full"))
    assert status_code(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
