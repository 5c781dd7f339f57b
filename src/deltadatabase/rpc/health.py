"""Ask a gRPC server for its health: grpc.health.v1, as Kubernetes' own gRPC probes do."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deltadatabase.errors import Unavailable
from deltadatabase.rpc.channels import Pem


def check_health(
    address: str, service: str, *, timeout_s: float, pem: Pem | None = None, server_name: str = ""
) -> bool:
    """Return whether ``service`` is served at ``host:port``; "" asks for the program as a whole.

    Args:
        address: the listener.
        service: full name of a gRPC service.
        timeout_s: how long an answer is waited for.
        pem: certificates to show and to check with; None: plain text.
        server_name: the name that the server's certificate must carry; "" is the address.

    Raises:
        Unavailable: ``unreachable``: nobody answers there, or nobody whom the certificates fit.
    """
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    if pem is None:
        channel = grpc.insecure_channel(address, options=options)
    else:
        # An own certificate is for servers that demand one; a client may have none.
        credentials = grpc.ssl_channel_credentials(pem.ca or None, pem.key or None, pem.cert or None)
        channel = grpc.secure_channel(address, credentials, options=options)
    with channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError as exc:
            if exc.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise Unavailable("no gRPC server answers there", code="unreachable") from None
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
