"""What an operator asks: which workers there are, and what the store guarantees."""

from __future__ import annotations

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission
from deltadatabase.clock import rfc3339
from deltadatabase.gateway.ports import Cluster
from deltadatabase.gateway.routes.access import guard
from deltadatabase.model import MemberInfo, MemberState, ProbeCheck, StoreReport


class Worker(msgspec.Struct, frozen=True):
    """A proc worker."""

    worker_id: str
    status: MemberState
    key_id: str
    last_seen: str
    tags: dict[str, str]


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """The database in a store. ``key_ids`` are the master keys that its entities may be sealed with."""

    database_id: str
    format: int
    shards: int
    highest_epoch: int
    key_ids: list[str]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker's start-up probe found."""

    backend: str
    database: Database
    templates: int
    checks: list[ProbeCheck]


class Store(msgspec.Struct, frozen=True):
    """``guarantees``: each check of the probe, true when it passed for every worker."""

    guarantees: dict[str, bool]
    workers: dict[str, Probe]


def handlers(cluster: Cluster, accounts: Accounts) -> list[HTTPRouteHandler]:
    """Routes ``/admin/workers`` and ``/admin/store``."""
    admin = [guard(accounts, Permission.ADMIN)]

    @get("/admin/workers", guards=admin)
    async def list_workers() -> list[Worker]:
        return [_worker(member) for member in cluster.members()]

    @get("/admin/store", guards=admin)
    async def get_store() -> Store:
        reports = cluster.store_reports()
        guarantees: dict[str, bool] = {}
        for report in reports.values():
            for check in report.checks:
                guarantees[check.name] = guarantees.get(check.name, True) and check.passed
        return Store(guarantees, {worker_id: _probe(report) for worker_id, report in reports.items()})

    return [list_workers, get_store]


def _worker(member: MemberInfo) -> Worker:
    return Worker(
        member.worker_id,
        member.state,
        member.key_id,
        rfc3339(member.last_seen_ms),
        {"grpc_addr": member.address},
    )


def _probe(report: StoreReport) -> Probe:
    # The keys' check values stay out: they would let a guess of a master key be confirmed.
    return Probe(
        backend=report.backend,
        database=Database(
            database_id=report.database.database_id,
            format=report.database.format,
            shards=report.database.shards,
            highest_epoch=report.database.highest_epoch,
            key_ids=sorted(report.database.keys),
        ),
        templates=report.templates,
        checks=list(report.checks),
    )
