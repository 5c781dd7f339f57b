"""A scripted handler and the two links to it, for every test of ``deltadatabase.rpc``."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from deltadatabase.clock import Random
from deltadatabase.model import Command, Result
from deltadatabase.rpc import channels
from deltadatabase.rpc.exchange import ExchangeService
from deltadatabase.rpc.handshake import Prove, Verify
from deltadatabase.rpc.stream import WorkerStream

INSTANCE = "worker-instance"


class ScriptedHandler:
    """Does what the test says, and remembers what it was asked.

    Without a script ``fast`` leaves everything to ``execute``, which waits for ``release``.
    """

    def __init__(self) -> None:
        self.fast_script: Callable[[Command], Result | None] = lambda command: None
        self.script: Callable[[Command], Awaitable[Result]] = self._wait
        self.release = asyncio.Event()
        self.started: list[Command] = []
        self.finished: list[Command] = []
        self.cancelled: list[Command] = []
        self._changed = asyncio.Event()

    def fast(self, command: Command) -> Result | None:
        return self.fast_script(command)

    async def execute(self, command: Command) -> Result:
        self.started.append(command)
        self._changed.set()
        try:
            result = await self.script(command)
        except asyncio.CancelledError:
            self.cancelled.append(command)
            raise
        finally:
            self._changed.set()
        self.finished.append(command)
        return result

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; it is looked at after each start and end."""
        async with asyncio.timeout(5):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def _wait(self, command: Command) -> Result:
        await self.release.wait()
        return Result(etag=command.key)


def secret(key: bytes) -> tuple[Prove, Verify]:
    """The two functions of one link key."""

    def prove(role: str, nonce_main: bytes, nonce_worker: bytes) -> bytes:
        return hmac.digest(key, role.encode() + b"|" + nonce_main + nonce_worker, hashlib.sha256)

    def verify(role: str, nonce_main: bytes, nonce_worker: bytes, proof: bytes) -> bool:
        return hmac.compare_digest(prove(role, nonce_main, nonce_worker), proof)

    return prove, verify


def counting_random() -> Random:
    """Nonces that differ and repeat in every run."""
    count = 0

    def draw(size: int, /) -> bytes:
        nonlocal count
        count += 1
        return count.to_bytes(size, "big")

    return draw


@asynccontextmanager
async def serving(
    handler: ScriptedHandler, *, key: bytes = b"link key", **options: Any
) -> AsyncIterator[tuple[ExchangeService, str]]:
    """Serve ``handler`` on loopback; yields the service and its address."""
    prove, verify = secret(key)
    service = ExchangeService(
        handler, prove=prove, verify=verify, random=counting_random(), instance_id=lambda: INSTANCE, **options
    )
    server = channels.new_server()
    service.register(server)
    port = channels.listen(server, "127.0.0.1:0")
    await server.start()
    try:
        yield service, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
        handler.release.set()
        await service.settle(5)


async def dial(
    address: str, *, key: bytes = b"link key", instance_id: str = INSTANCE, **options: Any
) -> WorkerStream:
    """Open a stream as the main worker does."""
    prove, verify = secret(key)
    return await WorkerStream.open(
        address,
        prove=prove,
        verify=verify,
        random=counting_random(),
        main_instance_id="main-instance",
        expected_worker_instance_id=instance_id,
        **options,
    )
