"""Short runs over sockets, and whether each of them finds what is planted in the programs."""

from __future__ import annotations

import pytest

from fuzz import grpc_main, grpc_proc, openapi, sockets
from fuzz.plants import planted_programs

pytestmark = pytest.mark.integration

SEED = 5
SHORT = {
    "http": (sockets.fuzz_http, 3500),
    "grpc-main": (grpc_main.fuzz_main, 700),
    "grpc-proc": (grpc_proc.fuzz_proc, 1000),
}
PLANTED = (
    ("500", "http", 12_000, "answered 500"),
    ("exit", "http", 12_000, "exit code 3"),
    ("leak", "http", 6000, "grew by"),
    ("stuck", "http", 3000, "neither answered nor closed"),
    ("join", "grpc-main", 12_000, "UNKNOWN"),
    ("command", "grpc-proc", 4000, "INTERNAL"),
)


@pytest.mark.parametrize("name", [*SHORT])
def test_real_programs_answer_live_on_and_stay_small(name, tmp_path):
    fuzz, requests = SHORT[name]
    with planted_programs(tmp_path) as started:
        tally, _ = fuzz(started, tmp_path, requests, SEED)
    assert tally.wrong == []
    assert tally.sent >= requests
    served = tally.answers["200"] + tally.answers["OK"] + tally.answers["reply OK"]
    assert served > requests / 50, tally.answers


@pytest.mark.parametrize(("plant", "name", "requests", "verdict"), PLANTED)
def test_a_planted_bug_is_found(plant, name, requests, verdict, tmp_path, monkeypatch):
    monkeypatch.setattr(sockets, "ANSWER_S", 2.0)
    with planted_programs(tmp_path, plant) as started:
        tally, _ = SHORT[name][0](started, tmp_path, requests, SEED)
    assert any(verdict in what for what in tally.wrong), tally.wrong


def test_the_openapi_document_says_what_the_server_does(tmp_path):
    with planted_programs(tmp_path) as started:
        tally, _ = openapi.fuzz_openapi(started, tmp_path, 2, SEED, ("reader",))
    assert tally.wrong == []


def test_a_handler_that_answers_500_is_found_through_the_openapi_document(tmp_path):
    with planted_programs(tmp_path, "no-route") as started:
        tally, _ = openapi.fuzz_openapi(started, tmp_path, 2, SEED, ("admin",))
    assert any("Server error" in what for what in tally.wrong), tally.wrong
