"""What is answered to anybody: documentation, errors, health, reflection."""

from __future__ import annotations

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from integration.cluster import MARKER, secrets_in

from security.attacker import ADMIN, ANSWER_S, code_of

pytestmark = pytest.mark.integration

SCRIPT = "<script>alert(1)</script>"


def test_no_page_or_error_runs_what_a_caller_sent(guarded):
    evil = httpx.QueryParams({"key": SCRIPT, "next": SCRIPT})
    answers = [
        httpx.get(f"{guarded.url}/docs?{evil}"),
        httpx.get(f"{guarded.url}/{SCRIPT}"),
        httpx.get(f"{guarded.url}/entity/{SCRIPT}?{evil}", headers=ADMIN),
        httpx.get(f"{guarded.url}/entity/notes?{evil}", headers=ADMIN),
        httpx.put(f"{guarded.url}/entity/notes", content=SCRIPT, headers=ADMIN),
        httpx.post(f"{guarded.url}/api/login", content=f'{{"key": "{SCRIPT}"}}'),
        httpx.request(SCRIPT.replace("<", "").replace(">", "").replace("/", "")[:6], f"{guarded.url}/docs"),
    ]
    for answer in answers:
        assert SCRIPT not in answer.text, answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        if "html" in answer.headers.get("content-type", ""):
            assert answer.request.url.path == "/docs"


def test_a_document_that_is_a_page_is_served_as_json(guarded):
    httpx.put(f"{guarded.url}/entity/notes", json={"a": SCRIPT}, headers=ADMIN).raise_for_status()
    answer = httpx.get(f"{guarded.url}/entity/notes", params={"key": "a"}, headers=ADMIN)
    assert answer.json() == SCRIPT
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_probes_and_documentation_tell_no_secret_and_no_document(guarded, tmp_path):
    httpx.put(f"{guarded.url}/entity/notes", json={"a": MARKER}, headers=ADMIN).raise_for_status()
    for path in ("/livez", "/readyz", "/health", "/docs", "/openapi.json", "/nothing"):
        answer = httpx.get(guarded.url + path)
        assert secrets_in(answer.text) == [], path
        assert str(tmp_path) not in answer.text, path


def test_grpc_health_and_reflection_tell_the_protocol_and_nothing_else(guarded):
    with grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S).status == 1
        unknown = health_pb2.HealthCheckRequest(service="../../etc")
        assert code_of(lambda: health.Check(unknown, timeout=ANSWER_S)) is grpc.StatusCode.NOT_FOUND
        asked = iter(
            [reflection_pb2.ServerReflectionRequest(file_containing_symbol="deltadatabase.v1.MainWorker")]
        )
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(asked, timeout=ANSWER_S)
        texts = answer.file_descriptor_response.file_descriptor_proto
        assert {descriptor_pb2.FileDescriptorProto.FromString(text).package for text in texts} <= {
            "deltadatabase.v1"
        }
        assert secrets_in(str(answer)) == []
