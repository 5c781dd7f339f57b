"""Every error code that the code raises for a client is in the documentation, under its status."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import deltadatabase
from deltadatabase import errors
from deltadatabase.errors import DeltaError
from deltadatabase.gateway.openapi import OPERATIONS
from deltadatabase.gateway.openapi.codes import CODES
from deltadatabase.gateway.problem import status_of

FOLDERS = ("auth", "crypto", "gateway", "rpc", "schema", "storage", "worker")
# These are between our own programs, or end one at its start; no REST client ever meets them.
BETWEEN_US = {
    *("admission_expired", "link_down", "link_lost", "main_worker_unreachable", "membership_ended"),
    *("not_owner", "other_database", "too_many_handshakes", "unknown_op", "bad_write_id", "wrong_peer"),
    *("already_exists", "no_listing", "unreachable", "worker_unreachable"),
}


def raised(text: str) -> Iterator[tuple[int, str]]:
    """Status and code of each error that is made somewhere with a literal code, or with none."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
        kind = getattr(errors, name, None)
        if not (isinstance(kind, type) and issubclass(kind, DeltaError)):
            continue
        if kind in (errors.PartlyApplied, errors.MethodNotAllowed, errors.StartupError):
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        if not given:
            yield status_of(kind("")), kind.default_code
        elif isinstance(given[0], ast.Constant):
            code = str(given[0].value)
            yield status_of(kind("", code=code)), code


def undocumented(text: str) -> set[tuple[int, str]]:
    return {
        (status, code)
        for status, code in raised(text)
        if code not in BETWEEN_US and code not in CODES.get(status, ())
    }


def test_every_code_is_documented() -> None:
    root = Path(deltadatabase.__file__).parent
    missing = {
        (path.name, *found)
        for folder in FOLDERS
        for path in (root / folder).rglob("*.py")
        for found in undocumented(path.read_text())
    }
    assert missing == set()


def test_a_new_code_is_found() -> None:
    assert undocumented('raise Conflict("x", code="brand_new")') == {(409, "brand_new")}
    assert undocumented('raise errors.NotFound("x", code="no_route")') == set()


def test_every_status_that_an_operation_may_have_has_codes() -> None:
    assert {status for operation in OPERATIONS for status in operation.errors} <= set(CODES)
