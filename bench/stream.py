"""Calls a second over the stream between main worker and proc worker, with the floor beside it.

    python bench/stream.py [--callers 64] [--seconds 3] [--bytes 1024]

Two processes on the loopback interface, uvloop in both, a handler that answers at once: what
remains is the cost of the hop. ``unary`` is one ``grpc.aio`` call a request with the same
messages; ``local`` is the link inside one process.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import grpc
import uvloop

from deltadatabase.clock import system_random
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc import channels, convert
from deltadatabase.rpc.exchange import ExchangeService
from deltadatabase.rpc.local import LocalLink
from deltadatabase.rpc.pb.proc_worker_pb2 import Reply, Request
from deltadatabase.rpc.stream import WorkerStream

LINK_KEY = b"benchmark"
COMMAND = Command(op=Op.GET, schema_id="chat.room", key="user:42", shard=77, term=5, request_id="0" * 16)
UNARY_SERVICE = "deltadatabase.bench.Unary"


class Answering:
    """A handler that always has the same document; ``slow`` sends each command through a task."""

    def __init__(self, document_bytes: int, *, slow: bool) -> None:
        self._result = Result(
            version=3, etag='"3-0123456789ab"', updated_ms=1, document=b"x" * document_bytes
        )
        self._slow = slow

    def fast(self, command: Command) -> Result | None:
        return None if self._slow else self._result

    async def execute(self, command: Command) -> Result:
        return self._result


def prove(role: str, nonce_main: bytes, nonce_worker: bytes) -> bytes:
    return hmac.digest(LINK_KEY, role.encode() + nonce_main + nonce_worker, hashlib.sha256)


def verify(role: str, nonce_main: bytes, nonce_worker: bytes, proof: bytes) -> bool:
    return hmac.compare_digest(prove(role, nonce_main, nonce_worker), proof)


async def serve(document_bytes: int, *, slow: bool) -> None:
    handler = Answering(document_bytes, slow=slow)

    async def unary(request: Request, _context: object) -> Reply:
        return convert.encode_reply(request.id, await handler.execute(convert.decode_request(request)))

    server = channels.new_server()
    ExchangeService(
        handler, prove=prove, verify=verify, random=system_random, instance_id=lambda: "bench"
    ).register(server)
    method = grpc.unary_unary_rpc_method_handler(
        unary, request_deserializer=Request.FromString, response_serializer=Reply.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(UNARY_SERVICE, {"Get": method}),))
    port = channels.listen(server, "127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


async def measure(name: str, call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> None:
    """Keep ``callers`` calls going for ``seconds`` and print their rate and latencies."""
    latencies_s: list[float] = []
    ends = time.perf_counter() + seconds

    async def caller() -> None:
        began = time.perf_counter()
        while began < ends:
            await call()
            ended = time.perf_counter()
            latencies_s.append(ended - began)
            began = ended

    cpu = time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    cpu_us = (time.process_time() - cpu) / len(latencies_s) * 1e6
    cuts = statistics.quantiles(latencies_s, n=100)
    print(
        f"{name:<8}{callers:>4} callers {len(latencies_s) / seconds:>9,.0f} calls/s   "
        f"p50 {cuts[49] * 1e3:6.2f} ms   p99 {cuts[98] * 1e3:6.2f} ms   client cpu {cpu_us:5.1f} us/call"
    )


async def client(port: int, callers: int, seconds: float, document_bytes: int) -> None:
    address = f"127.0.0.1:{port}"
    stream = await WorkerStream.open(
        address,
        prove=prove,
        verify=verify,
        random=system_random,
        main_instance_id="bench",
        expected_worker_instance_id="bench",
    )
    local = LocalLink(Answering(document_bytes, slow=False))
    async with channels.open_channel(address) as channel:
        unary = channel.unary_unary(f"/{UNARY_SERVICE}/Get", Request.SerializeToString, Reply.FromString)

        async def unary_call() -> Result:
            return convert.decode_reply(await unary(convert.encode_request(1, COMMAND)))

        for count in (callers, 1):
            await measure("stream", lambda: stream.call(COMMAND), count, seconds)
            await measure("unary", unary_call, count, seconds)
        # A call that never waits would starve the other callers.
        await measure("local", lambda: local.call(COMMAND), 1, seconds)
    await stream.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the hop between main worker and proc worker")
    parser.add_argument("--callers", type=int, default=64, help="concurrent calls (64)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement (3)")
    parser.add_argument("--bytes", type=int, default=1024, help="size of the document in the answer (1024)")
    parser.add_argument("--slow", action="store_true", help="every command takes a task of its own")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.bytes, slow=options.slow))
        return
    command = [sys.executable, __file__, "--serve", f"--bytes={options.bytes}"]
    with subprocess.Popen(
        command + ["--slow"] * options.slow, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        print(f"python {sys.version.split()[0]}, {os.cpu_count()} processors, {options.bytes} byte answers")
        uvloop.run(client(port, options.callers, options.seconds, options.bytes))


if __name__ == "__main__":
    main()
