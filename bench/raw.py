"""What a store can do: obstore alone, in a process of its own, with as many tasks as there are connections.

``python -m bench.raw`` reads settings and then orders from stdin, a line of JSON each, and answers each
order with one. ``Raw`` is the other side of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import obstore
import uvloop
from obstore.store import MemoryStore

from bench.load import Load, fresh_start, load_of
from bench.programs import ROOT, Server
from bench.stores import S3
from bench.workloads import DOCUMENTS, document

FILLING = 32
KINDS = ("put", "overwrite", "get", "sequential")


class Raw:
    """The process, running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.server = Server("raw obstore", process.pid, 0)

    def run(self, kind: str, *, size: int, connections: int, seconds: float) -> Load:
        """Let it work: ``put`` new keys, ``overwrite`` and ``get`` known ones, ``sequential``: put one."""
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"kind": kind, "size": size, "tasks": connections, "seconds": seconds}
        order["first"] = fresh_start()
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("raw obstore has ended")
        return Load(**json.loads(answer))


@contextlib.contextmanager
def raw(store: S3 | None) -> Iterator[Raw]:
    """Start it on a store; None is one in its memory."""
    command = [sys.executable, "-m", "bench.raw"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            settings = asdict(store) | {"servers": ()} if store else None
            process.stdin.write(json.dumps(settings) + "\n")
            yield Raw(process)
        finally:
            process.terminate()


class _Worker:
    def __init__(self, store: Any) -> None:
        self._store = store
        self._etags: dict[str, str] = {}

    async def work(self, kind: str, size: int, tasks: int, seconds: float, first: int) -> Load:
        content = document(0, size)
        if kind in ("overwrite", "get", "sequential") and len(self._etags) < DOCUMENTS:
            self._etags = await filled(self._store, [f"raw/{number}" for number in range(DOCUMENTS)], content)
        numbers = itertools.count(first)
        names = itertools.cycle(range(DOCUMENTS))

        async def put() -> None:
            await obstore.put_async(
                self._store, f"raw/new-{next(numbers):010}", content, mode="create", use_multipart=False
            )

        async def overwrite(name: str = "") -> None:
            name = name or f"raw/{next(names)}"
            # Two tasks never have the same name in hand: there are far fewer of them than names.
            mode = {"e_tag": self._etags[name]}
            done = await obstore.put_async(self._store, name, content, mode=mode, use_multipart=False)
            self._etags[name] = done["e_tag"] or ""

        async def get() -> None:
            await (await obstore.get_async(self._store, f"raw/{next(names)}")).bytes_async()

        calls: dict[str, Callable[[], Awaitable[None]]] = {
            "put": put,
            "overwrite": overwrite,
            "get": get,
            "sequential": lambda: overwrite("raw/0"),
        }
        return await _measured(calls[kind], 1 if kind == "sequential" else tasks, seconds)


async def filled(store: Any, names: Sequence[str], content: bytes) -> dict[str, str]:
    """Put the same object under each name; their ETags."""
    etags: dict[str, str] = {}
    left = iter(names)

    async def fill() -> None:
        for name in left:
            done = await obstore.put_async(store, name, content, use_multipart=False)
            etags[name] = done["e_tag"] or ""

    await asyncio.gather(*(fill() for _ in range(FILLING)))
    return etags


async def _measured(call: Callable[[], Awaitable[None]], tasks: int, seconds: float) -> Load:
    latencies_ms: list[float] = []
    errors = 0
    cpu_s, began_s = time.process_time(), time.perf_counter()

    async def caller() -> None:
        nonlocal errors
        while (now_s := time.perf_counter()) < began_s + seconds:
            try:
                await call()
            except Exception:  # noqa: BLE001 - each kind of failure counts the same
                errors += 1
            latencies_ms.append((time.perf_counter() - now_s) * 1000)

    await asyncio.gather(*(caller() for _ in range(tasks)))
    elapsed_s = time.perf_counter() - began_s
    return load_of(latencies_ms, errors=errors, seconds=elapsed_s, cpu_s=time.process_time() - cpu_s)


async def _main() -> None:
    settings = json.loads(sys.stdin.readline())
    worker = _Worker(MemoryStore() if settings is None else S3(**settings).store())
    while line := await asyncio.to_thread(sys.stdin.readline):
        load = await worker.work(**json.loads(line))
        print(json.dumps(asdict(load)), flush=True)


if __name__ == "__main__":
    uvloop.run(_main())
