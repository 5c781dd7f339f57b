"""Clients that write, read and delete through REST, and remember everything that they saw."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from sim.history import Operation

SCHEMA_ID: Final = "chaos"
TIMEOUT_S: Final = 15.0
"""Longer than the main worker works on a request."""

HOT: Final = 3
WARM: Final = 24
FIXED: Final = 32
"""Keys of an era that many clients fight for, others of an era, and those that are there all the time."""

ERAS_BACK_MAX: Final = 8
RATE_WINDOW_S: Final = 2.0


class Refused(Exception):
    """Nobody listens."""


class Broken(Exception):
    """The connection broke, or no answer came in time."""


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    etag: str
    body: bytes


class Connection:
    """One HTTP/1.1 connection, made again when it broke. Cheaper than a full client."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, target: str, body: bytes = b"", *, timeout_s: float = TIMEOUT_S
    ) -> Answer:
        """Send a request. Raises Refused, Broken."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(method, target, body)
        except (OSError, asyncio.IncompleteReadError, ValueError) as exc:
            self.close()
            raise Broken from exc
        except BaseException:
            self.close()
            raise

    async def _ask(self, method: str, target: str, body: bytes) -> Answer:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as exc:
                raise Refused from exc
        reader, writer = self._streams
        writer.write(
            b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b"
            % (method.encode(), target.encode(), len(body), body)
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        answer = Answer(
            int(head[0].split(" ")[1]),
            fields.get("etag", ""),
            await reader.readexactly(int(fields["content-length"])),
        )
        if fields.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def document_of(value: bytes) -> bytes:
    """The document that carries a value: of different sizes, and nothing in it can be mistaken."""
    pad = int.from_bytes(value[-3:]) * 7919 % 1500
    return b'{"value": "%b",  "pad": "%b"}' % (value, b"x" * pad)


def value_of(document: bytes) -> bytes:
    """The value that a document carries; the document itself if it is not exactly what was written."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        value: bytes = json.loads(document)["value"].encode()
        if document_of(value) == document:
            return value
    return document


def outcome_of(status: int) -> str:
    """What the status of an answer says of a request: ``ok``, ``refused`` or ``unknown``."""
    if 200 <= status < 300 or status == 404:
        return "ok"
    return "unknown" if status in (500, 504) else "refused"


class Load:
    """Many clients at work.

    Args:
        port: of the REST API.
        seed: of what is asked.
        clients: how many.
        rate: operations a second, of all together.

    Attributes:
        history: every operation, in the order in which they began.
        answers: how often each kind of operation got each answer.
        era: keys change with it, so that entities are created all the time.
        keys: every key that was ever written to.
    """

    def __init__(self, port: int, *, seed: int, clients: int, rate: float) -> None:
        self.port = port
        self.history: list[Operation] = []
        self.answers: Counter[tuple[str, str]] = Counter()
        self.era = 0
        self.keys: dict[str, None] = {}
        self._seed = seed
        self._clients = clients
        self._pause_s = clients / rate
        self._done: list[float] = []
        self._stopping = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Clients work inside; on the way out their last requests end."""
        tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        try:
            yield self
        finally:
            self._stopping = True
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def rate(self) -> float:
        """Successful operations a second, just now."""
        now = time.monotonic()
        return (len(self._done) - bisect.bisect_left(self._done, now - RATE_WINDOW_S)) / RATE_WINDOW_S

    def failures(self) -> int:
        """Requests that were answered by anything else than 200 or 404, or by nothing."""
        return sum(count for (_, answer), count in self.answers.items() if answer not in ("200", "404"))

    async def operate(
        self, connection: Connection, client: int, kind: str, key: str, value: bytes | None = None
    ) -> Operation:
        """One operation of a client, recorded."""
        operation = Operation(client, key, kind, value, time.monotonic())
        self.history.append(operation)
        if kind == "put":
            assert value is not None
            request = ("PUT", f"/entity/{SCHEMA_ID}", b'{"%b": %b}' % (key.encode(), document_of(value)))
            self.keys[key] = None
        else:
            request = ("GET" if kind == "get" else "DELETE", f"/entity/{SCHEMA_ID}?key={key}", b"")
        try:
            answer = await connection.ask(*request)
        except Refused:
            operation.outcome, said = "refused", "connection refused"
        except (Broken, TimeoutError) as exc:
            said = "timeout" if isinstance(exc.__cause__ or exc, TimeoutError) else "broken connection"
        else:
            said = _said(answer)
            _record(operation, answer)
        self.answers[kind, said] += 1
        if operation.outcome == "ok":
            self._done.append(time.monotonic())
        return operation

    async def read_all(self, timeout_s: float) -> list[Operation]:
        """Read every key once; ones that don't answer are asked again until the time is up."""
        left = iter(list(self.keys))
        final: list[Operation] = []
        deadline = time.monotonic() + timeout_s

        async def reader(number: int) -> None:
            connection = Connection(self.port)
            for key in left:
                while True:
                    operation = await self.operate(connection, number, "get", key)
                    if operation.outcome == "ok" or time.monotonic() > deadline:
                        break
                    await asyncio.sleep(0.1)
                final.append(operation)
            connection.close()

        await asyncio.gather(*(reader(self._clients + number) for number in range(8)))
        return final

    async def _client(self, number: int) -> None:
        rng = random.Random(f"{self._seed}/{number}")
        connection = Connection(self.port)
        next_s = time.monotonic() + rng.random() * self._pause_s
        count = 0
        while not self._stopping:
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            # What was missed is not made up for: a client that waited is no burst afterwards.
            next_s = max(next_s + self._pause_s, time.monotonic())
            count += 1
            key = self._key(rng)
            kind = rng.choices(["put", "get", "delete"], [5, 5, 1])[0]
            if kind == "delete" and not key.startswith("d"):
                # Where nobody deletes, everything that is missing was lost.
                kind = "get"
            value = b"%d.%d.%03d" % (number, count, rng.randrange(1000)) if kind == "put" else None
            operation = await self.operate(connection, number, kind, key, value)
            if operation.outcome != "ok":
                await asyncio.sleep(0.05)
        connection.close()

    def _key(self, rng: random.Random) -> str:
        """A key: a third of them may be deleted; some are hot; some are from before."""
        dice = rng.random()
        if dice < 0.15:
            return fixed_key(rng.randrange(FIXED))
        back = rng.randrange(ERAS_BACK_MAX) if dice > 0.75 else 0
        era = max(0, self.era - back)
        number = rng.randrange(HOT) if rng.random() < 0.35 else HOT + rng.randrange(WARM)
        return f"{'d' if number % 3 == 0 else 'k'}{era}-{number}"


def fixed_key(number: int) -> str:
    """A key that is written to from the beginning to the end, and never deleted."""
    return f"fixed-{number}"


def _said(answer: Answer) -> str:
    """Status, and the code of a problem."""
    if answer.status in (200, 404):
        return str(answer.status)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return f"{answer.status} {json.loads(answer.body)['error']}"
    return f"{answer.status} without a code"


def _record(operation: Operation, answer: Answer) -> None:
    operation.outcome = outcome_of(answer.status)
    if operation.outcome != "ok":
        return
    operation.end = time.monotonic()
    if operation.kind == "put":
        operation.version = int(json.loads(answer.body)["versions"][operation.key])
    elif operation.kind == "get" and answer.status == 200:
        operation.version = int(answer.etag.strip('"').partition("-")[0])
        operation.value = value_of(answer.body)
