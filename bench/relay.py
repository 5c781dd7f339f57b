"""The baseline of a hop: the bare application, each answer fetched over one gRPC stream.

What it lacks of a main worker and a proc worker is all that is not the hop itself: accounts, ring,
terms, deadlines, refusals, metrics. ``python -m bench.relay PORT ECHO_PORT BYTES`` is the near end,
``python -m bench.relay ECHO_PORT BYTES`` the far one.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final

import grpc
import grpc.aio
import uvloop

from deltadatabase.gateway.asgi import ASGIApp, Receive, Scope, Send
from deltadatabase.gateway.server import RestServer
from deltadatabase.rpc import channels
from deltadatabase.rpc.handshake import ClientCall, ServerContext
from deltadatabase.rpc.pb.proc_worker_pb2 import (
    Documents,
    EncodedReplyBatch,
    EncodedRequestBatch,
    Reads,
)

SERVICE: Final = "deltadatabase.bench.Relay"


class Relay:
    """The near end of the stream."""

    def __init__(self, call: ClientCall) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._last_id = 0
        self._asked: list[tuple[int, bytes]] = []
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._wake = asyncio.Event()

    def ask(self, key: bytes) -> asyncio.Future[bytes]:
        """Ask the far end for a document."""
        self._last_id = request_id = self._last_id + 1
        self._asked.append((request_id, key))
        answer = self._waiting[request_id] = self._loop.create_future()
        self._wake.set()
        return answer

    async def write(self) -> None:
        """Send what was asked, for ever."""
        while True:
            if not self._asked:
                self._wake.clear()
                await self._wake.wait()
            # What the loop has ready now goes along.
            await asyncio.sleep(0)
            ids, keys = zip(*self._asked, strict=True)
            self._asked = []
            batch = EncodedRequestBatch(reads=Reads(id=ids, key=keys))
            await self._call.write(batch.SerializeToString())

    async def read(self) -> None:
        """Hand out what is answered, until the far end has ended."""
        while isinstance(data := await self._call.read(), bytes):
            documents = EncodedReplyBatch.FromString(data).documents
            for request_id, document in zip(documents.id, documents.document, strict=True):
                self._waiting.pop(request_id).set_result(document)


def relaying(relay: Relay, document_bytes: int) -> ASGIApp:
    """An application whose every answer comes from the far end."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % document_bytes)]
    start = {"type": "http.response.start", "status": 200, "headers": headers}

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        document = await relay.ask(scope["query_string"])
        await send(start)
        await send({"type": "http.response.body", "body": document})

    return app


async def near(port: int, echo_port: int, document_bytes: int) -> None:
    """Serve HTTP until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with channels.open_channel(f"127.0.0.1:{echo_port}") as channel:
        stub = channel.stream_stream(f"/{SERVICE}/Exchange", bytes, bytes)
        relay = Relay(stub(wait_for_ready=True))  # type: ignore[call-arg]  # of aio, which its stubs forget
        ends = [asyncio.create_task(relay.write()), asyncio.create_task(relay.read())]
        server = RestServer(relaying(relay, document_bytes), "127.0.0.1", port)
        await server.start()
        await stop.wait()
        await server.stop(5.0)
        for end in ends:
            end.cancel()


async def far(port: int, document_bytes: int) -> None:
    """Answer the near end until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    document = b"x" * document_bytes

    async def exchange(_requests: object, context: ServerContext) -> None:
        while isinstance(data := await context.read(), bytes):
            ids = EncodedRequestBatch.FromString(data).reads.id
            batch = EncodedReplyBatch(documents=Documents(id=ids, document=[document] * len(ids)))
            await context.write(batch.SerializeToString())

    server = channels.new_server()
    method = grpc.stream_stream_rpc_method_handler(exchange)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Exchange": method}),))
    channels.listen(server, f"127.0.0.1:{port}")
    await server.start()
    await stop.wait()
    await server.stop(0.2)


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[1:]]
    uvloop.run(near(*numbers) if len(numbers) == 3 else far(*numbers))
