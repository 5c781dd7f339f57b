"""The whole system behind the REST and gRPC handlers, in this process, on a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from support.clocks import SeededRandom
from support.fake_store import FakeStore
from unit.gateway.rest_fakes import FakeRotation

from deltadatabase.auth.accounts import Accounts
from deltadatabase.clock import SystemClock
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.gateway.app import GatewayOptions, create_app
from deltadatabase.gateway.asgi import ASGIApp
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.members import Cluster
from deltadatabase.model import DatabaseInfo, MemberInfo, MemberState, ProbeCheck, StoreReport
from deltadatabase.rpc.local import LocalLink
from deltadatabase.storage.base import When
from deltadatabase.storage.database import FORMAT
from deltadatabase.storage.paths import DATABASE_PATH
from deltadatabase.worker.node import Node, NodeOptions

T = TypeVar("T")

ADMIN_KEY = "admin-key-of-the-fuzzer"
KEYRING = Keyring(MasterKey(b"\x07" * 32))
SHARDS = 16


class Loop:
    """An event loop that lasts for many executions."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class AlwaysHolds:
    membership = 1

    def holds(self) -> bool:
        return True


class State:
    """Stands for the main worker's state directory: what it reserved, in memory."""

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}

    def epoch_limit(self, database_id: str) -> int:
        return self._limits.get(database_id, 0)

    def set_epoch_limit(self, database_id: str, limit: int) -> None:
        self._limits[database_id] = limit


def database() -> DatabaseInfo:
    return DatabaseInfo(
        database_id="d1",
        format=FORMAT,
        shards=SHARDS,
        highest_epoch=0,
        keys={KEYRING.primary.key_id.hex(): KEYRING.primary.check_value("d1")},
    )


def report() -> StoreReport:
    return StoreReport(
        backend="memory", checks=(ProbeCheck("create_once", True, "held"),), database=database(), templates=0
    )


def make_node(store: FakeStore, seed: int = 0) -> Node:
    sealer = Sealer(KEYRING, SeededRandom(seed))
    return Node(
        store,
        lambda: sealer,
        report(),
        clock=SystemClock(),
        lease=AlwaysHolds(),
        options=NodeOptions(meta_sidecar=False),
    )


class Stack:
    """Router, one member, its engine and accounts. ``restart`` makes all but the accounts anew."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.accounts = Accounts(
            folder / "accounts",
            clock=SystemClock(),
            random=SeededRandom(1),
            admin_key=ADMIN_KEY,
            client_ttl_s=3600.0,
            dev_mode=False,
        )
        self.loop.run(self._start())

    def restart(self) -> None:
        self.loop.run(self._stop())
        self.loop.run(self._start())

    async def _stop(self) -> None:
        await self.node.settle(0.0)
        await self.cluster.close()

    async def _start(self) -> None:
        self.store = FakeStore()
        await self.store.put(DATABASE_PATH, msgspec.json.encode(database()), When.ABSENT)
        clock = SystemClock()
        self.router = Router(clock=clock, random=SeededRandom(2))
        self.cluster = Cluster(self.router, State(), clock=clock, random=SeededRandom(3))  # type: ignore[arg-type]
        self.node = make_node(self.store)
        member = MemberInfo(
            worker_id="one",
            instance_id="i1",
            state=MemberState.AVAILABLE,
            key_id="k",
            last_seen_ms=0,
            address="",
        )
        await self.cluster.admit(member, report(), LocalLink(self.node), watched=False)
        for key in self.accounts.list_keys():
            self.accounts.delete_key(key.id)
        self.app: ASGIApp = create_app(
            self.router,
            self.router,
            self.router,
            self.cluster,
            FakeRotation(),
            self.accounts,
            GatewayOptions(version="1.2.3", body_bytes_max=200_000, body_timeout_s=2.0),
            clock=clock,
            random=SeededRandom(4),
        )

    def close(self) -> None:
        self.loop.run(self._stop())
        self.accounts.close()
        self.loop.close()
