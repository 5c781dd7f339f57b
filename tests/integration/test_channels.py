from __future__ import annotations

import datetime as dt
import ipaddress
import socket
from pathlib import Path

import grpc
import pytest
from contract.links import INSTANCE, ScriptedHandler, counting_random, dial, secret
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

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
    stop_serving = await channels.add_health_and_reflection(server, [PROC_WORKER_SERVICE])
    port = channels.listen(server, "127.0.0.1:0")
    await server.start()
    async with channels.open_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", PROC_WORKER_SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
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
        await stop_serving()
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    await server.stop(None)


def _self_signed(folder: Path) -> Tls:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "worker")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    cert_path = str(folder / "cert.pem")
    return Tls(cert_path=cert_path, key_path=str(folder / "key.pem"), ca_path=cert_path)


async def test_the_stream_over_tls(tmp_path: Path) -> None:
    tls = _self_signed(tmp_path)
    handler = ScriptedHandler()
    handler.fast_script = lambda command: Result(etag=command.key)
    prove, verify = secret(b"link key")
    server = channels.new_server()
    ExchangeService(
        handler, prove=prove, verify=verify, random=counting_random(), instance_id=lambda: INSTANCE
    ).register(server)
    port = channels.listen(server, "127.0.0.1:0", tls=tls)
    await server.start()
    stream = await dial(f"127.0.0.1:{port}", tls=tls)
    assert (await stream.call(Command(op=Op.GET, key="a"))).etag == "a"
    await stream.close()
    with pytest.raises(Unavailable):
        await dial(f"127.0.0.1:{port}")
    await server.stop(None)


async def test_a_tls_file_that_cannot_be_read() -> None:
    with pytest.raises(StartupError) as caught:
        channels.open_channel("127.0.0.1:1", tls=Tls(ca_path="absent.pem"))
    assert caught.value.code == "bad_flag"
    server = channels.new_server()
    with pytest.raises(StartupError):
        channels.listen(server, "127.0.0.1:0", tls=Tls(cert_path="absent.pem", key_path="absent.pem"))


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
