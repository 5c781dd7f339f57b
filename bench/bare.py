"""The baseline of REST: a bare ASGI application on the same server. ``python -m bench.bare PORT BYTES``."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import uvloop

from deltadatabase.gateway.asgi import ASGIApp, Receive, Scope, Send
from deltadatabase.gateway.server import RestServer


def answering(document_bytes: int) -> ASGIApp:
    """An application whose every answer is the same document, unless the query is a length of another one."""

    def messages(size: int) -> tuple[dict[str, Any], dict[str, Any]]:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % size)]
        return (
            {"type": "http.response.start", "status": 200, "headers": headers},
            {"type": "http.response.body", "body": b"x" * size},
        )

    usual = messages(document_bytes)
    others: dict[bytes, tuple[dict[str, Any], dict[str, Any]]] = {}

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        query = scope["query_string"]
        if query.isdigit() and query not in others:
            others[query] = messages(int(query))
        start, body = others.get(query, usual)
        await send(start)
        await send(body)

    return app


async def serve(app: ASGIApp, port: int) -> None:
    """Serve an application on loopback until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = RestServer(app, "127.0.0.1", port)
    await server.start()
    await stop.wait()
    await server.stop(5.0)


if __name__ == "__main__":
    uvloop.run(serve(answering(int(sys.argv[2])), int(sys.argv[1])))
