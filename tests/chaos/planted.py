"""A proc worker with a bug: ``python -m chaos.planted NAME proc-worker …``.

The bugs are put in from outside before the program starts; the product knows nothing of them.
Each is something that this project promises not to do, and that the harness has to notice.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from deltadatabase.cli import main as cli
from deltadatabase.errors import DeltaError, OutcomeUnknown, Unavailable
from deltadatabase.model import RecentWrites
from deltadatabase.storage.base import Condition, When
from deltadatabase.storage.batch import digest
from deltadatabase.storage.local import DirectoryObjects
from deltadatabase.storage.objects import S3Objects
from deltadatabase.worker import commit
from deltadatabase.worker.cache import Cache, Entry, Name
from deltadatabase.worker.membership import MembershipClient
from deltadatabase.worker.node import Node
from deltadatabase.worker.writes import Attempt

Put = Callable[[Any, str, bytes, Condition], Awaitable[str]]


def _etag(store: object, data: bytes) -> str:
    """The ETag that an object of these bytes will get."""
    if isinstance(store, S3Objects):
        return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    return digest(data)


def _replace(owner: type, name: str, wrong: object) -> None:
    assert hasattr(owner, name), f"{owner.__name__}.{name} is no more: the bug has to be planted elsewhere"
    setattr(owner, name, wrong)


def _on_entities(wrong: Callable[[Put], Put]) -> None:
    """Replace the put of both stores, for entities only."""

    def replaced(right: Put) -> Put:
        bad = wrong(right)

        async def put(self: object, path: str, data: bytes, condition: Condition) -> str:
            return await (bad if path.endswith(".json.enc") else right)(self, path, data, condition)

        return put

    for store in (S3Objects, DirectoryObjects):
        _replace(store, "put", replaced(store.put))


def ack_before_commit() -> None:
    """A write is acknowledged when its put begins."""
    running = set()

    def wrong(right: Put) -> Put:
        async def put(self: object, path: str, data: bytes, condition: Condition) -> str:
            async def behind() -> None:
                try:
                    await right(self, path, data, condition)
                except DeltaError:
                    return

            task = asyncio.create_task(behind())
            running.add(task)
            task.add_done_callback(running.discard)
            return _etag(self, data)

        return put

    _on_entities(wrong)


def blind_put() -> None:
    """Puts have no condition."""

    def wrong(right: Put) -> Put:
        async def put(self: object, path: str, data: bytes, condition: Condition) -> str:
            return await right(self, path, data, When.ALWAYS)

        return put

    _on_entities(wrong)


def write_id_not_checked() -> None:
    """After a lost reply, the worker does not recognise its own write and makes it again."""
    right = commit.Committer._reload

    async def reload(self: commit.Committer, name: Name, attempt: Attempt) -> Entry:
        entry = await right(self, name, attempt)
        if entry.header is None:
            return entry
        forgotten = msgspec.structs.replace(entry.header, write_id=bytes(16), recent=RecentWrites())
        return msgspec.structs.replace(entry, header=forgotten)

    _replace(commit.Committer, "_reload", reload)


def lost_reply_refused() -> None:
    """A put whose reply was lost counts as refused."""

    def wrong(right: Put) -> Put:
        async def put(self: object, path: str, data: bytes, condition: Condition) -> str:
            try:
                return await right(self, path, data, condition)
            except OutcomeUnknown:
                raise Unavailable("planted") from None

        return put

    _on_entities(wrong)


def lost_reply_acknowledged() -> None:
    """A put whose reply was lost counts as done."""

    def wrong(right: Put) -> Put:
        async def put(self: object, path: str, data: bytes, condition: Condition) -> str:
            try:
                return await right(self, path, data, condition)
            except OutcomeUnknown:
                return _etag(self, data)

        return put

    _on_entities(wrong)


def unknown_refused() -> None:
    """A write that was given up while its put may have landed counts as refused."""
    right = Attempt.fail

    def fail(self: Attempt, error: Exception) -> None:
        self.open = False
        right(self, Unavailable("planted") if isinstance(error, OutcomeUnknown) else error)

    _replace(Attempt, "fail", fail)


def cache_not_tagged() -> None:
    """Cached values outlive the ownership under which they were read."""

    def get(self: Cache, name: Name, term: int, now_s: float) -> Entry | None:
        return self._entries.get(name)

    _replace(Cache, "get", get)


def no_drain() -> None:
    """A worker that is told to end ends at once."""

    async def drain(self: MembershipClient, timeout_s: float) -> None:
        return None

    async def settle(self: Node, timeout_s: float) -> None:
        return None

    _replace(MembershipClient, "drain", drain)
    _replace(Node, "settle", settle)


PLANTS: Final[dict[str, tuple[Callable[[], None], dict[str, tuple[str, ...]]]]] = {
    "ack-before-commit": (
        ack_before_commit,
        {"s3": ("drop-before", "kill-worker"), "directory": ("kill-worker", "disk-full")},
    ),
    "blind-put": (blind_put, {"s3": ("late",)}),
    "write-id-not-checked": (write_id_not_checked, {"s3": ("drop-after", "twice")}),
    "lost-reply-refused": (lost_reply_refused, {"s3": ("drop-after", "truncate")}),
    "lost-reply-acknowledged": (lost_reply_acknowledged, {"s3": ("drop-before",)}),
    "unknown-refused": (unknown_refused, {"s3": ("drop-after", "refuse-after")}),
    "cache-not-tagged": (
        cache_not_tagged,
        {"s3": ("join", "leave", "pause-worker"), "directory": ("join", "leave", "pause-worker")},
    ),
    "no-drain": (
        no_drain,
        {"s3": ("leave", "rolling-restart"), "directory": ("leave", "rolling-restart")},
    ),
}
"""Name to bug, and to the faults that bring it out on each store."""


def main() -> int:
    """Plant the bug and run the program as usual."""
    name, program, *arguments = sys.argv[1:]
    plant, _ = PLANTS[name]
    plant()
    run = {"proc-worker": cli.run_proc_worker, "main-worker": cli.run_main_worker}[program]
    return run(arguments, cli._environment())


if __name__ == "__main__":
    sys.exit(main())
