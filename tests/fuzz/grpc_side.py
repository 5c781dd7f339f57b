"""What both gRPC harnesses share: calls to one port, counted, and what is no gRPC at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random

import grpc
import grpc.aio

from deltadatabase.rpc import channels
from fuzz.verdicts import Tally, Watch

TOKEN = "the-join-token-of-the-tests"
CALL_S = 15.0
TASKS = 12
_OTHERS = (
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/deltadatabase.v1.MainWorker/Nothing",
    "/",
    "/a",
)
CLOSED_MEANWHILE = "Internal error from Core"
"""What the client's own library says when it writes on a call that the other end has ended."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Side:
    """Messages to one port. ``kinds`` are drawn with equal chances."""

    def __init__(self, port: int, tally: Tally) -> None:
        self.port = port
        self.tally = tally
        self.kinds: list[Callable[[Random, grpc.aio.Channel], object]] = [self.garbage, self.other]
        self._left = 0

    async def run(self, messages: int, seed: object) -> None:
        """Send about so many messages."""
        self._left = messages
        random = Random(f"{seed}/{self.port}")
        await asyncio.gather(*(self._task(Random(random.random())) for _ in range(TASKS)))

    async def _task(self, random: Random) -> None:
        while self._left > 0 and not self.tally.wrong:
            async with channels.open_channel(
                f"127.0.0.1:{self.port}", message_bytes_max=256 << 20
            ) as channel:
                for _ in range(40):
                    if self._left <= 0 or self.tally.wrong:
                        break
                    try:
                        async with asyncio.timeout(CALL_S):
                            await random.choice(self.kinds)(random, channel)  # type: ignore[misc]
                    except TimeoutError:
                        self.tally.found(f"a call did not end in {CALL_S:.0f} s")

    def sent(self, messages: int = 1) -> None:
        """Count messages that went out."""
        self.tally.sent += messages
        self._left -= messages

    def ended(self, error: grpc.aio.AioRpcError | None, data: bytes = b"") -> None:
        """Count how a call ended."""
        code = grpc.StatusCode.OK if error is None else error.code()
        detail = "" if error is None else (error.details() or "")
        if detail == CLOSED_MEANWHILE:
            self.tally.answers["closed meanwhile"] += 1
            return
        self.tally.answers[code.name] += 1
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS):
            self.tally.found(f"ended with {code.name} {detail[:300]!r}", data)

    async def garbage(self, random: Random, _channel: grpc.aio.Channel) -> None:
        """Bytes that are no gRPC, or begin like it."""
        data = random.choice(
            (
                random.randbytes(random.randrange(1, 300)),
                _PREFACE + random.randbytes(random.randrange(1, 300)),
                _PREFACE + b"\0\0\0\4\0\0\0\0\0" + _frame(random) + _frame(random),
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01" + random.randbytes(100),
            )
        )
        self.sent()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(data)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read(1 << 16)
            writer.close()
            await writer.wait_closed()
        except OSError:
            pass
        self.tally.answers["garbage"] += 1

    async def other(self, random: Random, channel: grpc.aio.Channel) -> None:
        """Other services, and none."""
        data = random.randbytes(random.randrange(60))
        self.sent()
        try:
            await channel.unary_unary(random.choice(_OTHERS), bytes, bytes)(data, timeout=5)
        except grpc.aio.AioRpcError as exc:
            if exc.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL):
                self.tally.answers[f"other {exc.code().name}"] += 1  # Of gRPC's own services.
            else:
                self.ended(exc, data)
        else:
            self.tally.answers["OK"] += 1


def _frame(random: Random) -> bytes:
    body = random.randbytes(random.randrange(40))
    size = random.choice((len(body), len(body) + 1, 0, 2**24 - 1))
    return (
        size.to_bytes(3, "big")
        + bytes((random.randrange(12), random.randrange(256)))
        + random.randbytes(4)
        + body
    )


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes((*encoded, number))


async def go_on(side: Side, watch: Watch, messages: int, seed: int) -> None:
    """Send so many messages, unless something goes wrong before."""
    await side.run(messages // 4, seed)
    watch.begin()
    while side.tally.sent < messages and not side.tally.wrong and watch.alive():
        await side.run(min(5000, messages - side.tally.sent), f"{seed}/{side.tally.sent}")
