"""Callers of gRPC who have proven nothing: what they can make a program hold, and whom they keep out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.programs import wait_for

from deltadatabase.limits import HANDSHAKE_TIMEOUT_S, MIB, STRANGERS_MAX, WATCHERS_OF_ONE_MAX
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from deltadatabase.rpc.pb import proc_worker_pb2 as data_pb
from deltadatabase.rpc.pb import types_pb2
from deltadatabase.telemetry.flood import LINES_MAX
from security.attacker import ADMIN, ANSWER_S, HalfSentCalls, Tap, code_of, join_message, resident_bytes

pytestmark = pytest.mark.integration


def test_a_join_message_of_many_megabytes_is_refused_unread(guarded):
    before = resident_bytes(guarded.main.process.pid)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}", options=options) as channel:
        for _ in range(4):
            huge = pb.WorkerMessage(join=join_message(version="x" * (30 * MIB)))
            code = code_of(
                lambda: list(pb_grpc.MainWorkerStub(channel).Subscribe(iter([huge]), timeout=ANSWER_S))  # noqa: B023
            )
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert resident_bytes(guarded.main.process.pid) - before < 24 * MIB


def test_a_process_call_without_credentials_is_refused_before_its_message_is_read(guarded):
    document = b'"' + b"x" * (MIB - 2) + b'"'
    asked = pb.ProcessRequest(op=types_pb2.OP_PUT, schema_id="notes", key="a", document=document)
    tap = Tap(guarded.grpc_port)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{tap.port}") as channel:
            process = pb_grpc.MainWorkerStub(channel).Process
            for metadata in (None, [("authorization", "Bearer wrong")]):
                sent = len(tap.sent)
                code = code_of(lambda: process(asked, metadata=metadata, timeout=ANSWER_S))  # noqa: B023
                assert code is grpc.StatusCode.UNAUTHENTICATED
                # What the connection's window lets through without a reader.
                assert len(tap.sent) - sent < MIB // 2
            # The same with a right key is read and served.
            metadata = [("authorization", ADMIN["Authorization"])]
            assert process(asked, metadata=metadata, timeout=ANSWER_S).version == 1
            assert len(tap.sent) > MIB
    finally:
        tap.close()


def silence(release: threading.Event) -> Iterator[pb.WorkerMessage]:
    """Messages of a caller who says nothing."""
    release.wait()
    yield from ()


def test_one_address_that_fills_its_handshakes_keeps_no_other_from_joining(guarded):
    release = threading.Event()
    told: list[str] = []
    tap = Tap(guarded.grpc_port, source="127.0.0.2")

    def attack() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{tap.port}") as channel:
            stub = pb_grpc.MainWorkerStub(channel)
            while not release.is_set():
                calls = [stub.Subscribe(silence(release), timeout=60) for _ in range(STRANGERS_MAX)]
                # Whoever has a place waits out his time there; the others are told at once.
                told.extend(answer.refused.code for call in calls for answer in read_for(call, 0.5))

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        wait_for(lambda: len(told) >= STRANGERS_MAX // 2, "the attacker has filled his places")
        begin = time.monotonic()
        guarded.start_worker("two")
        guarded.ready(2, timeout_s=20)
        assert time.monotonic() - begin < 10
        assert not release.is_set()
    finally:
        release.set()
        attacker.join()
        tap.close()
    assert told.count("too_many_handshakes") >= STRANGERS_MAX // 2
    lines = guarded.main.output.count("code=too_many_handshakes")
    assert lines <= 2 * LINES_MAX < len(told), "an attack must not fill the log"


def read_for(call: grpc.Call, seconds: float) -> list[pb.MainMessage]:
    """What a stream says within this time."""
    found: list[pb.MainMessage] = []

    def read() -> None:
        with contextlib.suppress(grpc.RpcError):
            found.extend(call)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(seconds)
    return found


def test_watchers_of_health_are_bounded(guarded):
    with grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        streams = [
            stub.Watch(health_pb2.HealthCheckRequest(), timeout=20) for _ in range(WATCHERS_OF_ONE_MAX + 20)
        ]
        refused = 0
        for stream in streams:
            try:
                next(stream)
            except grpc.RpcError as exc:
                assert exc.code() is grpc.StatusCode.UNAVAILABLE
                refused += 1
        assert refused == 20
        for stream in streams:
            stream.cancel()
        time.sleep(0.2)
        next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=5))


def test_a_worker_reads_little_before_the_link_key_is_proven(guarded):
    (member,) = httpx.get(f"{guarded.url}/admin/workers", headers=ADMIN).json()
    options = [("grpc.max_send_message_length", -1)]
    release = threading.Event()

    with grpc.insecure_channel(member["tags"]["grpc_addr"], options=options) as channel:
        exchange = channel.stream_stream("/deltadatabase.v1.ProcWorker/Exchange")
        # Decoded, it would be sixteen million requests.
        many = b"\x0a\x00" * (8 * MIB)
        assert data_pb.RequestBatch.DESCRIPTOR.fields_by_name["requests"].number == 1
        before = resident_bytes(guarded.workers["one"].process.pid)
        code = code_of(lambda: list(exchange(iter([many]), timeout=ANSWER_S)))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert resident_bytes(guarded.workers["one"].process.pid) - before < 64 * MIB
        silent = [exchange(silence(release), timeout=30) for _ in range(8)]
        codes = [code_of(lambda: list(call)) for call in silent]  # noqa: B023
        assert codes.count(grpc.StatusCode.UNAVAILABLE) >= 6
        release.set()
    assert httpx.put(f"{guarded.url}/entity/notes", json={"a": 1}, headers=ADMIN).status_code == 200


@pytest.mark.parametrize("target", ["main worker", "worker"])
def test_calls_that_need_no_credentials_and_never_end_hold_little(guarded, target):
    (member,) = httpx.get(f"{guarded.url}/admin/workers", headers=ADMIN).json()
    at_worker = target == "worker"
    port = int(member["tags"]["grpc_addr"].rpartition(":")[2]) if at_worker else guarded.grpc_port
    program = guarded.workers["one"] if at_worker else guarded.main
    calls, message_bytes = (12, 25_000_000) if at_worker else (60, 1_000_000)
    before = resident_bytes(program.process.pid)
    attackers = [
        HalfSentCalls(port, "/grpc.health.v1.Health/Check", calls=calls, message_bytes=message_bytes)
        for _ in range(3 if at_worker else 5)
    ]
    threads = [threading.Thread(target=attacker.send_for, args=(4.0,)) for attacker in attackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = resident_bytes(program.process.pid) - before
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        # Those that were heard are told that their time is up; then there is a place again.
        time.sleep(HANDSHAKE_TIMEOUT_S)
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    for attacker in attackers:
        attacker.close()
    assert held < 150 * MIB
