"""Requests over sockets to a real ``deltadb serve``: half-valid ones, and what is no request at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path
from random import Random

import httpx
from support.programs import Program, free_port, wait_until_ready

from fuzz.mutate import bytes_changed
from fuzz.plants import PlantedPrograms
from fuzz.targets import http
from fuzz.targets.stack import ADMIN_KEY as SEED_KEY
from fuzz.verdicts import Tally, Watch

CONNECTIONS = 16
QUIET_S = 0.1
CORPUS_MAX = 300
WARM = 1500
ANSWER_S = 8.0
REQUESTS_PER_CONNECTION = 25
ADMIN_KEY = "the-admin-key-of-the-tests"
KEYS_MAX = 50
_HEAD_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")


def serve(started: PlantedPrograms, folder: Path) -> tuple[Program, int]:
    """A server with an admin key, a directory and a small cache."""
    port = free_port()
    program = started.start(
        "deltadb",
        "serve",
        f"-rest-addr=127.0.0.1:{port}",
        f"-shared-fs={folder / 'db'}",
        "-cache-bytes=16MiB",
        "-rest-max-body-size=1MiB",
        environ={"ADMIN_KEY": ADMIN_KEY},
    )
    wait_until_ready(f"http://127.0.0.1:{port}", program)
    return program, port


def make_key(url: str, *permissions: str) -> tuple[str, str]:
    """A new API key: its id and its secret."""
    answer = httpx.post(
        f"{url}/api/keys",
        json={"name": "fuzzer", "permissions": permissions},
        headers={"Authorization": f"Bearer {ADMIN_KEY}"},
    )
    return answer.json()["id"], answer.json()["secret"]


class HttpFuzzer:
    """Sends requests made from the seeds of the ``rest`` target.

    Args:
        port: of the server.
        seed: of everything that is drawn.
        keys: bearer tokens of several rights, "" for none.
    """

    def __init__(self, port: int, seed: int, keys: list[str], tally: Tally) -> None:
        self._port = port
        self._seed = seed
        self._keys = keys
        self.tally = tally
        self._left = 0

    async def run(self, requests: int) -> None:
        """Send so many requests."""
        self._left = requests
        random = Random(f"{self._seed}/{requests}/{self.tally.sent}")
        await asyncio.gather(*(self._client(Random(random.random())) for _ in range(CONNECTIONS)))

    async def _client(self, random: Random) -> None:
        corpus = [*http.SEEDS]
        while self._left > 0 and not self.tally.wrong:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as exc:
                self.tally.found(f"no connection: {type(exc).__name__}")
                return
            try:
                for _ in range(REQUESTS_PER_CONNECTION):
                    if self._left <= 0:
                        break
                    self._left -= 1
                    if not await self._one(random, corpus, reader, writer):
                        break
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _one(
        self,
        random: Random,
        corpus: list[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; whether the connection can be used again."""
        data = http.changed(random, random.choice(corpus), random.choice(corpus))
        if random.random() < 0.3:
            data = http.changed(random, data, random.choice(http.SEEDS))
        wire, plain = self._wire(random, data)
        self.tally.sent += 1
        try:
            writer.write(wire)
            async with asyncio.timeout(ANSWER_S):
                if plain:
                    before = self.tally.answers["200"]
                    reusable = await self._answer(reader, wire)
                    if self.tally.answers["200"] > before and len(corpus) < CORPUS_MAX and len(data) < 4000:
                        corpus.append(data)
                    return reusable
                rest = b""
                with contextlib.suppress(TimeoutError):
                    # Nobody knows how many answers that has: first what comes, then the end.
                    async with asyncio.timeout(QUIET_S):
                        rest = await reader.read(1 << 20)
                writer.write_eof()
                while more := await reader.read(1 << 20):
                    rest += more
            self._count(rest, wire)
        except TimeoutError:
            self.tally.answers["late"] += 1
            self.tally.found(f"neither answered nor closed in {ANSWER_S:.0f} s", wire)
        except (OSError, asyncio.IncompleteReadError):
            self.tally.answers["none"] += 1
        return False

    def _wire(self, random: Random, data: bytes) -> tuple[bytes, bool]:
        """The bytes of a request, and whether it has exactly one answer and leaves the connection open."""
        data = data.replace(SEED_KEY.encode(), random.choice(self._keys).encode())
        head, _, body = data.partition(_HEAD_END)
        first, *lines = head.split(b"\r\n")
        draw = random.random()
        if draw < 0.02:
            return random.randbytes(random.randrange(1, 400)), False
        if draw < 0.04:
            return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.randbytes(random.randrange(60)), False
        version = (
            b" HTTP/1.1" if draw < 0.97 else random.choice((b" HTTP/1.0", b" HTTP/2.0", b"", b" HTTP/1.1 x"))
        )
        if draw < 0.9 and not any(line.lower().startswith(b"host") for line in lines):
            lines.insert(0, b"host: 127.0.0.1")
        framed = [
            line for line in lines if line.lower().startswith((b"content-length", b"transfer-encoding"))
        ]
        if not framed and body:
            if draw < 0.8:
                lines.append(b"content-length: %d" % len(body))
            else:
                lines.append(b"transfer-encoding: chunked")
                body = self._chunked(random, body)
        wire = b"\r\n".join((first + version, *lines)) + _HEAD_END + body
        if random.random() < 0.05:
            return bytes_changed(random, wire, data), False
        plain = not framed and draw < 0.8 and self._is_plain(first, lines)
        return wire, plain

    @staticmethod
    def _is_plain(first: bytes, lines: list[bytes]) -> bool:
        """Whether this request is framed as any HTTP server understands it."""
        names = [line.partition(b":")[0].lower() for line in lines]
        return (
            re.fullmatch(rb"(GET|PUT|POST|DELETE|PATCH) /[!-~]*", first) is not None
            and all(re.fullmatch(rb"[a-z-]+: ?[ -~]*", line) for line in lines)
            and not {b"expect", b"connection", b"upgrade", b"te"} & {*names}
            and names.count(b"host") == 1
        )

    @staticmethod
    def _chunked(random: Random, body: bytes) -> bytes:
        at = random.randrange(len(body) + 1)
        parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:at], body[at:]) if part)
        if random.random() < 0.3:
            return bytes_changed(random, parts, body)
        return parts + random.choice(
            (b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"0\r\n", b"-1\r\n", b"")
        )

    async def _answer(self, reader: asyncio.StreamReader, wire: bytes) -> bool:
        head = await reader.readuntil(_HEAD_END)
        match = _STATUS.match(head)
        if match is None:
            self.tally.found(f"no HTTP answer: {head[:200]!r}", wire)
            return False
        status = int(match[1])
        length = _LENGTH.search(head)
        closes = b"connection: close" in head.lower()
        body = b""
        if status != 304 and length is not None:
            body = await reader.readexactly(int(length[1]))
        self._judge(status, head, body, wire)
        return not closes and length is not None

    def _count(self, answers: bytes, wire: bytes) -> None:
        """Count the answers in what came before the end."""
        if not answers:
            self.tally.answers["none"] += 1
        for match in _STATUS.finditer(answers):
            status = int(match[1])
            self._judge(status, b"", answers if status == 500 else b"", wire)

    def _judge(self, status: int, head: bytes, body: bytes, wire: bytes) -> None:
        self.tally.answers[str(status)] += 1
        if status == 500:
            self.tally.found(f"answered 500 {body[:300]!r}", wire)
        if status >= 400 and head and b"application/problem+json" in head.lower():
            problem = json.loads(body)
            if problem["status"] != status or not problem["error"]:
                self.tally.found("a problem document that is none", wire)


def fuzz_http(started: PlantedPrograms, folder: Path, requests: int, seed: int) -> tuple[Tally, float]:
    """Send so many requests to a server of one's own; what came of it, and how long it took."""
    tally = Tally()
    program, port = serve(started, folder)
    url = f"http://127.0.0.1:{port}"
    _, writer_key = make_key(url, "read", "write")
    _, reader_key = make_key(url, "read")
    watch = Watch(tally, {"server": program})
    fuzzer = HttpFuzzer(port, seed, [ADMIN_KEY, ADMIN_KEY, writer_key, reader_key, "wrong"], tally)
    begun = time.monotonic()
    asyncio.run(fuzzer.run(min(WARM, requests // 3)))
    watch.begin()
    while tally.sent < requests and not tally.wrong and watch.alive():
        asyncio.run(fuzzer.run(min(5000, requests - tally.sent)))
        _forget_keys(url)
    seconds = time.monotonic() - begun
    if watch.alive():
        still_serves(url, tally)
    watch.judge()
    return tally, seconds


def _forget_keys(url: str) -> None:
    """Delete API keys that were made: they are kept in memory, as many as an admin wants."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with contextlib.suppress(httpx.TransportError), httpx.Client(headers=headers, timeout=20) as client:
        for key in client.get(f"{url}/api/keys").json()[KEYS_MAX:]:
            client.delete(f"{url}/api/keys/{key['id']}")


def still_serves(url: str, tally: Tally) -> None:
    """A document goes in and comes out."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    text = '{"alive":  true}'
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
            put = client.put("/entity/after-the-fuzzer", content=b'{"k": %b}' % text.encode())
            got = client.get("/entity/after-the-fuzzer", params={"key": "k"})
            ready = client.get("/readyz")
    except httpx.TransportError as exc:
        tally.found(f"does not answer any more: {type(exc).__name__}")
        return
    if (put.status_code, got.status_code, ready.status_code, got.text) != (200, 200, 200, text):
        tally.found(f"does not serve any more: {put.status_code} {got.status_code} {ready.status_code}")
