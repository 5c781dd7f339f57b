"""Whether the HTTP server can use a certificate: it is tried in a process of its own.

Granian ends its process over a certificate or a key that its TLS library refuses, and what that
library accepts cannot be told from outside. So a child serves one handshake with it first.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
from typing import Final

import msgspec

from deltadatabase.crypto.certificates import Pem
from deltadatabase.gateway.asgi import Receive, Scope, Send
from deltadatabase.gateway.listener import BACKLOG, Listener

TRIAL_TIMEOUT_S: Final = 10.0
_HANDSHAKE_TIMEOUT_S: Final = 8.0
_SHOWN: Final = b"shown"


async def accepts(pem: Pem) -> bool:
    """Whether a server in a child process showed this certificate in a handshake."""
    # Not asyncio's own way: uvloop forks, and gRPC's handlers of a fork stop its calls and may
    # never come back. The standard library's vfork does not run them.
    return await asyncio.to_thread(_accepts, msgspec.json.encode(pem))


def _accepts(encoded: bytes) -> bool:
    try:
        child = subprocess.run(
            [sys.executable, "-m", "deltadatabase.gateway.trial"],
            input=encoded,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return child.stdout == _SHOWN


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing: a handshake is all that is asked of it."""


async def shows(pem: Pem) -> bool:
    """Serve one handshake with ``pem`` and look at what is shown. May end the process."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as bound:
        Listener(_app, bound, pem=pem, connections_max=1, header_timeout_s=_HANDSHAKE_TIMEOUT_S)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        # Whom to trust is the clients' affair; here it only matters that it is this certificate.
        context.verify_mode = ssl.CERT_NONE
        async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(*bound.getsockname(), ssl=context)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return bool(shown == ssl.PEM_cert_to_DER_cert(_first(pem.cert)))


async def _main() -> None:
    """Say on stdout whether the certificate that stdin names could be shown, and end."""
    if await shows(msgspec.json.decode(sys.stdin.buffer.read(), type=Pem)):
        os.write(sys.stdout.fileno(), _SHOWN)
    # Not by way of the interpreter's end: granian's threads outlive it and abort the process.
    os._exit(0)


def _first(chain: bytes) -> str:
    text = chain.decode("ascii")
    end = "-----END CERTIFICATE-----\n"
    return text[: text.index(end) + len(end)]


if __name__ == "__main__":
    asyncio.run(_main())
