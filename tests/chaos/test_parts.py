"""The harness's own parts: schedule, judge, clients."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from sim.history import Operation
from support.programs import free_port

from chaos.clients import Broken, Connection, Load, Refused, document_of, outcome_of, value_of
from chaos.faults import Faults
from chaos.judge import judge, lost
from chaos.planted import PLANTS
from chaos.report import table, verdict
from chaos.run import RATE_MIN, Invalid, Made, Options, Record, enough
from chaos.schedule import MEANING, NETWORK, PLANNED, kinds_of, schedule

ALL = kinds_of("s3", own_disk=False)


# The schedule


def first(count: int, seed: int, network: bool = True) -> list[str]:
    return [repr(fault) for fault in itertools.islice(schedule(seed, ALL, network=network), count)]


def test_one_seed_is_one_schedule():
    assert first(200, 7) == first(200, 7)
    assert first(200, 7) != first(200, 8)


def test_every_round_has_every_kind_once():
    plan = schedule(1, ALL, network=True)
    for _ in range(5):
        assert sorted(fault.kind for fault in itertools.islice(plan, len(ALL))) == sorted(ALL)


def test_a_crash_may_have_a_network_fault_beside_it_and_a_planned_move_has_none():
    faults = list(itertools.islice(schedule(1, ALL, network=True), 300))
    assert any(fault.beside for fault in faults)
    assert not any(fault.beside for fault in faults if fault.kind in (*PLANNED, *NETWORK))
    plain = itertools.islice(schedule(1, ALL, network=False), 300)
    assert not any(fault.beside for fault in plain)


def test_every_kind_is_explained_and_made():
    kinds = {*kinds_of("s3", own_disk=False), *kinds_of("directory", own_disk=True)}
    assert kinds == set(MEANING)
    assert kinds == {*Faults._makers, *NETWORK}


def test_a_planted_bug_names_faults_that_its_store_knows():
    for _, by_store in PLANTS.values():
        for store, faults in by_store.items():
            assert set(faults) <= set(kinds_of(store, own_disk=True))


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_fits_the_code_as_it_is(plant):
    done = subprocess.run(
        [sys.executable, "-m", "chaos.planted", plant, "proc-worker", "-h"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_too_little_load_is_invalid():
    with pytest.raises(Invalid):
        await enough(lambda: RATE_MIN - 1, RATE_MIN, wait_s=0.0)
    assert await enough(lambda: RATE_MIN, RATE_MIN, wait_s=0.0) == RATE_MIN


# The verdict

OPTIONS = Options(store="s3", seconds=1.0, seed=1)
KILL = Made("kill-worker+late", 1.0, 2.0, 200.0, 5)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (Record(OPTIONS, made=[KILL]), "passed"),
        (Record(OPTIONS), "INVALID"),
        (Record(OPTIONS, made=[KILL], invalid="too slow"), "INVALID"),
        (Record(OPTIONS, made=[KILL], invalid="too slow", violations=["k: …"]), "failed"),
        (Record(OPTIONS, made=[KILL], lost=["k"]), "failed"),
        (Record(OPTIONS, made=[KILL], unreadable=["k"]), "failed"),
        (Record(OPTIONS, made=[KILL], exits=["proc-worker w1: exit code 70"]), "failed"),
        (Record(OPTIONS, made=[KILL], broken="not ready"), "failed"),
        (Record(OPTIONS, made=[KILL], answers={("get", "500 internal"): 1}), "failed"),
        (Record(OPTIONS, made=[Made("leave", 1.0, 2.0, 200.0, 1)]), "failed"),
        (Record(OPTIONS, made=[Made("scale-down", 1.0, 2.0, 200.0, 1)]), "failed"),
    ],
)
def test_a_run_passes_only_if_nothing_is_wrong_and_it_proves_something(record, says):
    assert verdict(record) == says
    assert table(record).splitlines()[-1].startswith(says)


# The judge


def operations(*told: tuple[str, bytes | None, float, float | None, int, str]) -> list[Operation]:
    return [
        Operation(client, "k", kind, value, begin, end, version, outcome)
        for client, (kind, value, begin, end, version, outcome) in enumerate(told)
    ]


def test_what_one_copy_could_have_shown_passes():
    history = operations(
        ("put", b"1", 0, 1, 1, "ok"),
        ("put", b"2", 2, None, 0, "unknown"),
        ("get", b"2", 3, 4, 2, "ok"),
        ("delete", None, 5, 6, 0, "ok"),
        ("get", None, 7, 8, 0, "ok"),
        ("put", b"3", 9, None, 0, "refused"),
        ("put", b"4", 10, 11, 4, "ok"),
        ("delete", None, 12, None, 0, "unknown"),
        ("put", b"5", 13, 14, 5, "ok"),
        ("get", None, 15, 16, 0, "ok"),
        ("put", b"6", 17, None, 0, "unknown"),
        ("put", b"7", 18, 19, 8, "ok"),
    )
    assert judge(history) == []


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ([("put", b"1", 0, 1, 1, "ok"), ("get", None, 2, 3, 0, "ok")], "absent"),
        (
            [
                ("put", b"1", 0, 1, 1, "ok"),
                ("delete", None, 2, 3, 0, "ok"),
                ("put", b"2", 4, 5, 3, "ok"),
                ("get", None, 6, 7, 0, "ok"),
            ],
            "absent, and no delete",
        ),
        (
            [
                ("put", b"1", 0, 1, 1, "ok"),
                ("delete", None, 2, 3, 0, "ok"),
                ("get", b"1", 4, 5, 1, "ok"),
            ],
            "there again",
        ),
        (
            [
                ("put", b"1", 0, 1, 1, "ok"),
                ("delete", None, 2, 3, 0, "ok"),
                ("put", b"2", 4, 5, 2, "ok"),
            ],
            "there again",
        ),
        ([("put", b"1", 0, 1, 1, "ok"), ("put", b"2", 2, 3, 3, "ok")], "made by nobody"),
        (
            [
                ("put", b"1", 0, 1, 1, "ok"),
                ("put", b"2", 2, None, 0, "refused"),
                ("put", b"3", 4, 5, 3, "ok"),
            ],
            "made by nobody",
        ),
        (
            [
                ("put", b"1", 0, 1, 1, "ok"),
                ("put", b"2", 2, None, 0, "unknown"),
                ("get", b"2", 3, 4, 2, "ok"),
                ("put", b"3", 5, 6, 4, "ok"),
            ],
            "made by nobody",
        ),
        ([("put", b"1", 0, None, 0, "refused"), ("get", b"1", 2, 3, 1, "ok")], "never written"),
        (
            [("put", b"1", 0, 1, 1, "ok"), ("put", b"2", 2, 3, 2, "ok"), ("get", b"1", 4, 5, 1, "ok")],
            "older than",
        ),
    ],
)
def test_a_contradiction_is_seen(told, says):
    assert says in "\n".join(judge(operations(*told)))


def test_a_key_that_shows_less_than_was_acknowledged_is_lost():
    history = operations(("put", b"1", 0, 1, 1, "ok"), ("put", b"2", 2, 3, 2, "ok"))
    for value, version, expected in ((b"2", 2, []), (b"1", 1, ["k"]), (None, 0, ["k"])):
        read = Operation(9, "k", "get", value, 4, 5, version, "ok")
        assert lost([*history, read], [read]) == expected


def one_copy(seed: int) -> list[Operation]:
    """A history that one copy shows which takes requests at a moment between their begin and end."""
    rng = random.Random(seed)
    version, value, history = 0, None, []
    for at in range(80):
        kind = rng.choice(["put", "put", "get", "get", "delete"])
        begin, end = at - rng.uniform(0, 3), at + rng.uniform(0, 3)
        fate = rng.choices(["ok", "unknown", "vanished", "refused"], [12, 1, 1, 1])[0]
        operation = Operation(at, "k", kind, f"{at}".encode() if kind == "put" else None, begin)
        history.append(operation)
        if fate == "refused":
            operation.outcome = "refused"
            continue
        if kind != "get" and fate != "vanished" and (kind == "put" or value is not None):
            version, value = version + 1, operation.value
        if fate == "ok":
            operation.outcome, operation.end = "ok", end
            if kind == "put":
                operation.version = version
            elif kind == "get":
                operation.version, operation.value = (version, value) if value is not None else (0, None)
    return history


def test_no_history_of_one_copy_is_accused():
    for seed in range(300):
        history = one_copy(seed)
        random.Random(seed).shuffle(history)
        assert judge(history) == [], seed


def test_most_histories_that_forget_a_write_are_accused():
    """As a check of the check: an acknowledged put that was not the last is taken back."""
    accused = 0
    for seed in range(300):
        history = one_copy(seed)
        reads = [op for op in history if op.kind == "get" and op.outcome == "ok" and op.version > 1]
        # The read shows what was there two versions before.
        for read in reads[-1:]:
            older = next((op for op in history if op.kind == "put" and op.version == read.version - 2), None)
            if older is not None:
                read.version, read.value = older.version, older.value
                accused += bool(judge(history))
    assert accused > 50


# The clients


def test_a_document_tells_its_value_only_if_it_is_whole():
    for value in (b"1.2.003", b"24.999.998"):
        document = document_of(value)
        assert value_of(document) == value
        assert value_of(document[:-1]) != value
        assert value_of(document.replace(b"  ", b" ")) != value


def test_an_answer_tells_whether_a_request_was_applied():
    outcomes = {status: outcome_of(status) for status in (200, 404, 400, 412, 429, 500, 503, 504, 507)}
    assert [status for status, outcome in outcomes.items() if outcome == "ok"] == [200, 404]
    assert [status for status, outcome in outcomes.items() if outcome == "unknown"] == [500, 504]


async def test_a_refused_connection_is_no_broken_one():
    connection = Connection(free_port())
    with pytest.raises(Refused):
        await connection.ask("GET", "/")

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Broken):
            await Connection(port).ask("GET", "/")
        load = Load(port, seed=1, clients=1, rate=1.0)
        operation = await load.operate(Connection(port), 0, "put", "k", b"0.0.000")
    assert (operation.outcome, operation.end) == ("unknown", None)
    assert load.failures() == 1
