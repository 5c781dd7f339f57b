"""The baseline of REST: a bare ASGI application on the same server. ``python -m bench.bare PORT BYTES``."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from deltadatabase.gateway.asgi import ASGIApp, Receive, Scope, Send
from deltadatabase.gateway.server import RestServer


def answering(document_bytes: int) -> ASGIApp:
    """An application whose every answer is the same document."""
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % document_bytes)],
    }
    body = {"type": "http.response.body", "body": b"x" * document_bytes}

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start)
        await send(body)

    return app


async def main(port: int, document_bytes: int) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = RestServer(answering(document_bytes), "127.0.0.1", port)
    await server.start()
    await stop.wait()
    await server.stop(5.0)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
