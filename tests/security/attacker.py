"""What an attacker has: raw sockets, a gRPC client, the join protocol spoken by hand."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from integration.cluster import ADMIN_KEY, JOIN_TOKEN
from support.programs import Program, Programs, free_port, wait_until_ready

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinContext, JoinToken
from deltadatabase.crypto.wrap import WrapKey
from deltadatabase.limits import GRPC_MESSAGE_BYTES_MAX_DEFAULT
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc

ANSWER_S = 5.0
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
LOCAL = "Host: localhost"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


def serve(started: Programs, *flags: str) -> tuple[Program, int]:
    """A server in dev mode, and its port."""
    port = free_port()
    program = started.start("deltadb", "serve", f"-rest-addr=127.0.0.1:{port}", *flags)
    wait_until_ready(f"http://127.0.0.1:{port}", program)
    return program, port


def raw(port: int, request: bytes) -> int:
    """Send bytes as they are; the answer's status, 0 when the connection is closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as connection:
        connection.sendall(request)
        answer = b""
        while not (found := _STATUS_LINE.match(answer)):
            # A server that neither answers nor closes raises a TimeoutError here.
            received = connection.recv(4096)
            if not received:
                return 0
            answer += received
        return int(found[1])


def request(method: str, target: str, *lines: str, body: bytes = b"") -> bytes:
    """A request whose headers are exactly these, and a Content-Length if there is a body."""
    framing = [f"Content-Length: {len(body)}"] if body else []
    head = "\r\n".join((f"{method} {target} HTTP/1.1", *lines, *framing, "", ""))
    return head.encode("latin-1") + body


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    """How a call ends that must not succeed."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    code: grpc.StatusCode = caught.value.code()
    return code


def join_message(**fields: object) -> pb.Join:
    """A well-formed Join of a rogue, with some fields changed."""
    join = pb.Join(
        worker_id="rogue",
        instance_id="instance",
        public_key=WrapKey.generate().public_bytes,
        nonce=b"n" * joining.NONCE_BYTES,
        grpc_addr="127.0.0.1:9",
        backend="s3",
        message_bytes_max=GRPC_MESSAGE_BYTES_MAX_DEFAULT,
    )
    join.MergeFrom(pb.Join(**fields))  # type: ignore[arg-type]
    return join


def context_of(join: pb.Join, nonce: bytes) -> JoinContext:
    """What a proof for this join is about."""
    return JoinContext(
        server_nonce=nonce,
        worker_nonce=join.nonce,
        worker_id=join.worker_id,
        instance_id=join.instance_id,
        public_key=join.public_key,
        grpc_addr=join.grpc_addr,
    )


def proof_for(join: pb.Join, nonce: bytes, token: str = JOIN_TOKEN) -> bytes:
    """The proof that admits, for who knows the token."""
    return joining.worker_proof(JoinToken.from_text(token), context_of(join, nonce))


def heard(
    channel: grpc.Channel, join: pb.Join | None, prove: Callable[[bytes], bytes]
) -> list[pb.MainMessage]:
    """What the main worker says to this join, and to the proof for its challenge."""
    nonces: list[bytes] = []
    challenged = threading.Event()

    def messages() -> Iterator[pb.WorkerMessage]:
        if join is not None:
            yield pb.WorkerMessage(join=join)
            challenged.wait(1.0)
        yield pb.WorkerMessage(proof=pb.Proof(proof=prove(nonces[0] if nonces else b"")))

    answers = []
    for message in pb_grpc.MainWorkerStub(channel).Subscribe(messages(), timeout=ANSWER_S):
        answers.append(message)
        if message.HasField("challenge"):
            nonces.append(message.challenge.nonce)
            challenged.set()
    return answers


@dataclass
class Tap:
    """A wire between a client and a server: counts what the client sends, and can replay it.

    Attributes:
        target: port of the server.
        source: address of this machine from which the server is called.
        sent: bytes that the client sent.
        received: bytes that the server sent.
    """

    target: int
    source: str = "127.0.0.1"
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target), source_address=(self.source, 0))
            self._sockets += [client, server]
            for source, sink, seen in ((client, server, self.sent), (server, client, self.received)):
                thread = threading.Thread(target=self._pump, args=(source, sink, seen))
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
        try:
            while data := source.recv(65_536):
                seen += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """End everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with_end(each)
        for thread in self._threads:
            thread.join()


def with_end(connection: socket.socket) -> None:
    """Close a socket that a thread may be reading."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


def resident_bytes(pid: int) -> int:
    """How much memory a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such process")


def random_proof() -> bytes:
    """32 bytes that prove nothing."""
    return secrets.token_bytes(32)


class HalfSentCalls:
    """Calls of one gRPC method whose messages never end, over raw HTTP/2 (RFC 9113), without credentials.

    Args:
        port: the server's.
        method: path of the method.
        calls: how many on one connection.
        message_bytes: what each says that it will send; ten bytes less are sent, as far as the server lets.
    """

    def __init__(self, port: int, method: str, *, calls: int, message_bytes: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.settimeout(0.3)
        self._window = self._initial = 65_535
        self._windows = dict.fromkeys(range(1, 2 * calls, 2), self._initial)
        message = struct.pack(">BI", 0, message_bytes) + b"x" * (message_bytes - 10)
        self._left = dict.fromkeys(self._windows, message)
        self._received = b""
        fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "x"}
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        # Literal fields without indexing (RFC 7541, section 6.2.2).
        block = b"".join(
            b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
            for name, value in fields.items()
        )
        opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _http2(4, 0, 0, b"")
        self._connection.sendall(opening + b"".join(_http2(1, 4, stream, block) for stream in self._windows))

    def send_for(self, seconds: float) -> None:
        """Send as much as the server takes."""
        until = time.monotonic() + seconds
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < until:
                self._send_some()
                with contextlib.suppress(TimeoutError):
                    received = self._connection.recv(65_536)
                    if not received:
                        return
                    self._received += received
                self._take_frames()

    def close(self) -> None:
        """Go away."""
        self._connection.close()

    def _send_some(self) -> None:
        for stream, left in self._left.items():
            while left and (size := min(16_384, self._window, self._windows[stream], len(left))) > 0:
                self._connection.sendall(_http2(0, 0, stream, left[:size]))
                left = self._left[stream] = left[size:]
                self._window -= size
                self._windows[stream] -= size

    def _take_frames(self) -> None:
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + length:
                return
            kind, flags = self._received[3], self._received[4]
            stream = int.from_bytes(self._received[5:9], "big") & 0x7FFFFFFF
            body, self._received = self._received[9 : 9 + length], self._received[9 + length :]
            if kind == 8 and stream == 0:
                self._window += int.from_bytes(body, "big")
            elif kind == 8:
                self._windows[stream] += int.from_bytes(body, "big")
            elif kind == 4 and not flags & 1:
                for name, value in struct.iter_unpack(">HI", body):
                    if name == 4:
                        self._windows = {s: w + value - self._initial for s, w in self._windows.items()}
                        self._initial = value
                self._connection.sendall(_http2(4, 1, 0, b""))
            elif kind == 6 and not flags & 1:
                self._connection.sendall(_http2(6, 1, 0, body))
            elif kind == 3:
                self._left[stream] = b""


def _http2(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body
