"""The baseline of an object store behind HTTP: the bare application, each answer after one obstore call.

What it lacks of ``deltadb serve`` is all but HTTP and the store: no schema, no seal, no header, no
condition but that a new name is new. ``python -m bench.gateway PORT BYTES SETTINGS``, the last as JSON.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import obstore
import uvloop

from bench.bare import serve
from bench.raw import filled
from bench.stores import S3
from bench.workloads import DOCUMENTS, document, key
from deltadatabase.gateway.asgi import ASGIApp, Receive, Scope, Send

FOLDER = "gateway/"


def application(store: Any) -> ASGIApp:
    """PUT puts the body under a new name; GET gets the object that the query names."""
    numbers = itertools.count()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "PUT":
            # Small enough to come in one piece.
            body = (await receive())["body"]
            await obstore.put_async(
                store, f"{FOLDER}new-{next(numbers):010}", body, mode="create", use_multipart=False
            )
            content = b'{"status":"ok"}'
        elif scope["query_string"]:
            name = scope["query_string"].removeprefix(b"key=").decode()
            content = bytes(await (await obstore.get_async(store, FOLDER + name)).bytes_async())
        else:
            content = b"ready"
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


async def main(port: int, size: int, settings: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    store = S3(**settings).store()
    await filled(store, [FOLDER + key(number) for number in range(DOCUMENTS)], document(0, size))
    await serve(application(store), port)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])))
