"""Who calls over gRPC."""

import os
import socket

import pytest

from deltadatabase.gateway import peers


@pytest.mark.parametrize(
    ("grpc_addr", "peer", "address"),
    [
        ("worker:50052", "ipv4:10.0.0.7:51234", "worker:50052"),
        ("0.0.0.0:50052", "ipv4:10.0.0.7:51234", "10.0.0.7:50052"),
        ("[::]:50052", "ipv6:%5Bfd00::7%5D:51234", "[fd00::7]:50052"),
        (":50052", "ipv4:127.0.0.1:51234", "127.0.0.1:50052"),
    ],
)
def test_where_a_worker_is_dialled(grpc_addr: str, peer: str, address: str) -> None:
    assert peers.reachable_address(grpc_addr, peer) == address


def test_the_owner_of_a_local_connection_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as listener:
            listener.bind((host, 0))
            listener.listen()
            with socket.create_connection(listener.getsockname()[:2]) as caller:
                port = caller.getsockname()[1]
                name = f"ipv4:{host}:{port}" if family == socket.AF_INET else f"ipv6:%5B{host}%5D:{port}"
                assert peers.is_same_user(name)
                with monkeypatch.context() as other:
                    other.setattr(peers, "ROOT", -1)
                    other.setattr(os, "geteuid", lambda: 12345)
                    assert not peers.is_same_user(name)


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.7:51234", "unix:/x", "", "ipv4:127.0.0.1:1", "ipv4:x:y"])
def test_anybody_else_is_not_the_same_user(peer: str) -> None:
    assert not peers.is_same_user(peer)
