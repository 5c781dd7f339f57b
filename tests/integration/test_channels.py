from __future__ import annotations

import contextlib
import datetime as dt
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from contract.links import INSTANCE, ScriptedHandler, counting_random, dial, secret
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.certificates import Authority, Pair

from deltadatabase.crypto.certificates import Pem
from deltadatabase.errors import StartupError, Unavailable
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc import channels
from deltadatabase.rpc.channels import PROC_WORKER_SERVICE, Tls
from deltadatabase.rpc.exchange import ExchangeService


async def test_an_occupied_port_is_one_clear_error(capfd: pytest.CaptureFixture[str]) -> None:
    first, second = channels.new_server(), channels.new_server()
    port = channels.listen(first, "127.0.0.1:0")
    await first.start()
    with pytest.raises(StartupError) as caught:
        channels.listen(second, f"127.0.0.1:{port}")
    assert caught.value.code == "port_in_use"
    assert str(port) in caught.value.detail
    await first.stop(None)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "127.0.0.1:", "host", "192.0.2.1:0", "a b:80"])
async def test_an_address_that_is_not_ours_is_refused(
    address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server = channels.new_server()
    with pytest.raises(StartupError) as caught:
        channels.listen(server, address)
    assert caught.value.code == "bad_flag"
    assert capfd.readouterr().err == ""


async def test_a_bare_port_listens_on_every_interface() -> None:
    server = channels.new_server()
    port = channels.listen(server, ":0")
    await server.start()
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        pass
    await server.stop(None)


async def test_health_and_reflection() -> None:
    server = channels.new_server()
    shown = await channels.add_health_and_reflection(server, [PROC_WORKER_SERVICE], serving=False)
    port = channels.listen(server, "127.0.0.1:0")
    await server.start()
    async with channels.open_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def serves(name: str) -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        assert [await serves(name) for name in ("", PROC_WORKER_SERVICE)] == [True, False]
        await shown.show(PROC_WORKER_SERVICE, serving=True)
        assert [await serves(name) for name in ("", PROC_WORKER_SERVICE)] == [True, True]
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=PROC_WORKER_SERVICE),
        ]
        listed, described = [answer async for answer in reflection.ServerReflectionInfo(iter(requests))]
        names = {service.name for service in listed.list_services_response.service}
        assert names == {
            PROC_WORKER_SERVICE,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        assert described.file_descriptor_response.file_descriptor_proto
        await shown.stop()
        assert [await serves(name) for name in ("", PROC_WORKER_SERVICE)] == [False, False]
    await server.stop(None)


def _tls(pair: Pair, ca: bytes, **options: Any) -> Tls:
    pem = Pem(cert=pair.cert, key=pair.key, ca=ca, serial="", not_after_ms=0)
    return Tls(current=lambda: pem, **options)


@contextlib.asynccontextmanager
async def _serving(tls: Tls) -> AsyncIterator[str]:
    handler = ScriptedHandler()
    handler.fast_script = lambda command: Result(etag=command.key)
    prove, verify = secret(b"link key")
    server = channels.new_server()
    ExchangeService(
        handler, prove=prove, verify=verify, random=counting_random(), instance_id=lambda: INSTANCE
    ).register(server)
    port = channels.listen(server, "127.0.0.1:0", tls=tls)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def _answers(address: str, tls: Tls | None) -> bool:
    try:
        stream = await dial(address, tls=tls)
    except Unavailable:
        return False
    assert (await stream.call(Command(op=Op.GET, key="a"))).etag == "a"
    await stream.close()
    return True


async def test_the_stream_over_tls() -> None:
    ours, others = Authority(), Authority()
    tls = _tls(ours.issue(), ours.cert)
    async with _serving(tls) as address:
        assert await _answers(address, tls)
        assert not await _answers(address, None)
        assert not await _answers(address, _tls(others.issue(), others.cert))


async def test_the_name_that_a_servers_certificate_must_carry() -> None:
    ours = Authority()
    named = ours.issue(["deltadb.internal"])
    async with _serving(_tls(named, ours.cert)) as address:
        assert not await _answers(address, _tls(named, ours.cert))
        assert await _answers(address, _tls(named, ours.cert, server_name="deltadb.internal"))
        assert not await _answers(address, _tls(named, ours.cert, server_name="deltadb.external"))


async def test_new_connections_see_the_certificates_of_the_moment() -> None:
    ours, others = Authority(), Authority()
    pems = [
        Pem(cert=pair.cert, key=pair.key, ca=one.cert, serial="", not_after_ms=0)
        for one in (ours, others)
        for pair in [one.issue()]
    ]
    server_side = pems[:1]
    async with _serving(Tls(current=lambda: server_side[0], client_auth=True)) as address:
        before, after = (Tls(current=lambda pem=pem: pem) for pem in pems)
        stays = await dial(address, tls=before)
        assert not await _answers(address, after)
        server_side[0] = pems[1]
        assert await _answers(address, after)
        assert not await _answers(address, before)
        # What was connected already goes on.
        assert (await stays.call(Command(op=Op.GET, key="a"))).etag == "a"
        await stays.close()


async def test_a_server_that_demands_certificates() -> None:
    ours, others = Authority(), Authority()
    tls = _tls(ours.issue(), ours.cert, client_auth=True)
    expired = ours.issue(ends=dt.timedelta(minutes=-1))
    async with _serving(tls) as address:
        assert await _answers(address, _tls(ours.issue(["whoever"]), ours.cert))
        assert not await _answers(address, _tls(others.issue(), ours.cert))
        assert not await _answers(address, _tls(expired, ours.cert))
        assert not await _answers(address, None)
        roots = grpc.ssl_channel_credentials(ours.cert)
        async with grpc.aio.secure_channel(address, roots) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_key_that_grpc_cannot_use_is_one_clear_error() -> None:
    pair = Authority().issue(key=ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(StartupError):
        channels.listen(channels.new_server(), "127.0.0.1:0", tls=_tls(pair, b""))


async def test_a_message_past_the_limit_is_refused_by_the_transport() -> None:
    server = channels.new_server(message_bytes_max=100_000)

    async def echo(request: bytes, _: object) -> bytes:
        return request

    method = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Echo": method}),))
    port = channels.listen(server, "127.0.0.1:0")
    await server.start()
    async with channels.open_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/test.Echo/Echo", bytes, bytes)
        assert len(await call(bytes(90_000))) == 90_000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(bytes(110_000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await server.stop(None)
