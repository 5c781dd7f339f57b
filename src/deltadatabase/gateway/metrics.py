"""What the main worker tells Prometheus, read where it stands when it is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, final

import grpc
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from deltadatabase.clock import Clock
from deltadatabase.gateway import entity, exporting, feed, importing, resources
from deltadatabase.gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from deltadatabase.gateway.following import Following
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.members import Cluster
from deltadatabase.gateway.moves import FOREIGN_WRITER, STORE_GONE
from deltadatabase.gateway.ports import Rotations
from deltadatabase.gateway.process import Context
from deltadatabase.gateway.rotation import Phase, RotationStatus
from deltadatabase.model import MemberState, Op
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.telemetry.metrics import (
    DURATION_BOUNDS_S,
    SIZE_BOUNDS,
    Histogram,
    counter,
    gauge,
    histogram,
    merged,
)

HTTP_REQUESTS: Final = counter(
    "http_requests_total",
    "REST requests by route (as a template, or `unmatched`), method and status code; "
    "`aborted`: the client went away before the answer.",
    "route",
    "method",
    "code",
)
HTTP_DURATION: Final = histogram(
    "http_request_duration_seconds",
    "Their times, from the headers to the end of the answer, by the class of the status code (`2xx`).",
    "route",
    "method",
    "outcome",
)
HTTP_IN_FLIGHT: Final = gauge("http_requests_in_flight", "REST requests under way.")
GRPC_REQUESTS: Final = counter(
    "grpc_requests_total", "Calls of `MainWorker.Process` by operation and gRPC status.", "op", "code"
)
GRPC_DURATION: Final = histogram("grpc_request_duration_seconds", "Their times.", "op")
ROUTER_IN_FLIGHT: Final = gauge(
    "router_in_flight", "Commands on entities that workers have and that are not answered yet."
)
ROUTER_HELD: Final = gauge("router_held_requests", "Requests that wait while their shard moves.")
ROUTER_LOOKUPS: Final = counter(
    "router_lookups_total",
    "Writes whose answer was lost, so that the present owner was asked whether they were applied.",
)
STREAM_QUEUED: Final = gauge("stream_queued_requests", "Commands that wait to be sent to a worker.")
STREAM_BATCH: Final = histogram("stream_batch_requests", "Commands that one message to a worker takes along.")
MEMBERS: Final = gauge("members", "Proc workers that have joined, by state.", "state")
JOINS: Final = counter("member_joins_total", "Proc workers that joined.")
DRAINS: Final = counter("member_drains_total", "Proc workers that asked to be drained.")
LOSSES: Final = counter("member_losses_total", "Memberships that ended without a drain.")
EPOCH: Final = gauge("epoch", "The present epoch; it rises with every change of owners.")
SHARDS: Final = gauge("shards", "Shards with an owner (`owned`) and without (`orphaned`).", "state")
MOVES: Final = counter("shard_moves_total", "Times a shard got another owner.")
READY: Final = gauge("ready", "1 while data is served, as `/readyz` tells, else 0.")
CHECKS: Final = gauge("readiness_check", "Each check of `/readyz`: 1 while it passes.", "check")
CLOSED: Final = gauge(
    "closed",
    "1 while no data is served for this reason: `store_gone`, the store does not hold this database; "
    "`foreign_writer`, another main worker uses it.",
    "reason",
)
KEY_OBJECTS: Final = gauge(
    "key_objects_left",
    "Objects that may still be sealed with a former master key, as the last walk found; "
    "0 once it can be retired.",
    "key_id",
)
ROTATION_RUNNING: Final = gauge("rotation_running", "1 while a rotation of the master key goes on, else 0.")
ROTATION_BLOCKED: Final = gauge(
    "rotation_blocked", "1 after a rotation that could not finish because of damaged objects, else 0."
)
ROTATION_DAMAGED: Final = gauge("rotation_objects_damaged", "Objects that the last rotation could not open.")

FEEDS: Final = gauge("feeds_open", "Change feeds that stream, or wait for a change.")
FEED_CHANGES: Final = counter("feed_changes_total", "Changes that feeds have delivered.")
FEED_CATCH_UPS: Final = counter(
    "feed_catch_ups_total", "Times a feed went on from what is stored, because the log did not reach back."
)
FEED_NOTED: Final = gauge("feed_changes_noted", "Changes that the log of the feeds remembers.")
FEED_UNSURE: Final = gauge(
    "feed_unsure_writes", "Writes of unknown outcome that are looked after, so that feeds tell of them."
)

FEED_FAMILIES: Final = (FEEDS, FEED_CHANGES, FEED_CATCH_UPS, FEED_NOTED, FEED_UNSURE)
ROTATION_FAMILIES: Final = (KEY_OBJECTS, ROTATION_RUNNING, ROTATION_BLOCKED, ROTATION_DAMAGED)
FAMILIES: Final = (
    HTTP_REQUESTS,
    HTTP_DURATION,
    HTTP_IN_FLIGHT,
    GRPC_REQUESTS,
    GRPC_DURATION,
    ROUTER_IN_FLIGHT,
    ROUTER_HELD,
    ROUTER_LOOKUPS,
    STREAM_QUEUED,
    STREAM_BATCH,
    MEMBERS,
    JOINS,
    DRAINS,
    LOSSES,
    EPOCH,
    SHARDS,
    MOVES,
    READY,
    CHECKS,
    CLOSED,
    *FEED_FAMILIES,
    *ROTATION_FAMILIES,
)
"""What a program with a router in it exports."""

ENTITY_ROUTE: Final = entity.PREFIX + "{schema_id}"
CHANGES_ROUTE: Final = feed.PREFIX + "{schema_id}"
LIST_ROUTE: Final = resources.PREFIX + "{schema_id}"
RESOURCE_ROUTE: Final = LIST_ROUTE + "/{key}"
_RAW_ROUTES: Final = {
    importing.PREFIX: importing.ROUTE,
    exporting.PREFIX: exporting.ROUTE,
    feed.PREFIX: CHANGES_ROUTE,
}
UNMATCHED: Final = "unmatched"
METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"})
_ABORTED: Final = "aborted"
_FIRST_CODES: Final = {
    "GET": (200, 404, 500, 503),
    "PUT": (200, 500, 503, 504),
    "DELETE": (200, 500, 503, 504),
}
"""Counted from the start: a counter's first value is no rise."""
_OPS: Final = {int(op): op.name.lower() for op in Op}
_STATUSES: Final = {status.value[0]: status.name for status in grpc.StatusCode}
WALKED: Final = frozenset({Phase.RESEALING, Phase.BLOCKED, Phase.FINISHED})
"""Phases in which the number of objects is known."""

Process = Callable[[pb.ProcessRequest, Context], Awaitable[pb.ProcessResponse]]


@final
class RequestMeter:
    """Counts and times REST requests around the whole application."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cells: dict[tuple[str, str, int], Histogram] = {
            (ENTITY_ROUTE, method, code): Histogram(DURATION_BOUNDS_S)
            for method, codes in _FIRST_CODES.items()
            for code in codes
        }
        self.in_flight = 0

    def around(self, app: ASGIApp) -> ASGIApp:
        """The same application, counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            status = 0

            # Not a coroutine: one more for each message would be half of what this costs.
            def noting(message: Message) -> Awaitable[None]:
                nonlocal status
                if not status:
                    status = message["status"]
                return send(message)

            # Read now: the layers below change both for the framework.
            method, path = scope["method"], scope["path"]
            started_s = self._clock.monotonic_s()
            self.in_flight += 1
            try:
                await app(scope, receive, noting)
            finally:
                self.in_flight -= 1
                elapsed_s = self._clock.monotonic_s() - started_s
                name = (route_of(scope, path), method if method in METHODS else "other", status)
                cell = self._cells.get(name)
                if cell is None:
                    cell = self._cells[name] = Histogram(DURATION_BOUNDS_S)
                cell.observe(elapsed_s)

        return counted

    def collect(self) -> Iterable[Metric]:
        """Give every sample."""
        cells = self._cells.copy()
        yield HTTP_REQUESTS.each(
            {
                (route, method, str(status) if status else _ABORTED): cell.count
                for (route, method, status), cell in cells.items()
            }
        )
        names = sorted({(route, method, _outcome(status)) for route, method, status in cells})
        yield HTTP_DURATION.histograms(
            {
                (route, method, outcome): merged(
                    [
                        cell
                        for (route_of, method_of, status), cell in cells.items()
                        if (route_of, method_of, _outcome(status)) == (route, method, outcome)
                    ]
                )
                for route, method, outcome in names
            }
        )
        yield HTTP_IN_FLIGHT.of(self.in_flight)


def route_of(scope: Scope, path: str) -> str:
    """The template that a request's path fits, once the request was served."""
    # The framework notes which of its templates a path fits.
    return _raw_route(path) or scope.get("path_template", UNMATCHED)


def _raw_route(path: str) -> str:
    """The template of a path that skips the framework; "" of any other."""
    if path.startswith(entity.PREFIX):
        return ENTITY_ROUTE
    if path.startswith(resources.PREFIX):
        has_key = 0 < path.find("/", len(resources.PREFIX)) < len(path) - 1
        return RESOURCE_ROUTE if has_key else LIST_ROUTE
    return next((route for prefix, route in _RAW_ROUTES.items() if path.startswith(prefix)), "")


def _outcome(status: int) -> str:
    return f"{status // 100}xx" if status else _ABORTED


@final
class CallMeter:
    """Counts and times calls of gRPC clients that a doorkeeper has let pass."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cells: dict[tuple[str, str], Histogram] = {}

    def around(self, process: Process) -> Process:
        """The same call, counted."""

        async def counted(request: pb.ProcessRequest, context: Context) -> pb.ProcessResponse:
            started_s = self._clock.monotonic_s()
            code = "CANCELLED"
            try:
                response = await process(request, context)
                code = "OK"
                return response
            except Exception:
                # Where the call was refused, the context has its status.
                code = _status_name(context.code())
                raise
            finally:
                name = (_OPS.get(int(request.op), "unknown"), code)
                cell = self._cells.get(name)
                if cell is None:
                    cell = self._cells[name] = Histogram(DURATION_BOUNDS_S)
                cell.observe(self._clock.monotonic_s() - started_s)

        return counted

    def collect(self) -> Iterable[Metric]:
        """Give every sample."""
        cells = self._cells.copy()
        yield GRPC_REQUESTS.each({labels: cell.count for labels, cell in cells.items()})
        ops = sorted({op for op, _ in cells})
        yield GRPC_DURATION.histograms(
            {(op,): merged([cell for name, cell in cells.items() if name[0] == op]) for op in ops}
        )


@final
class GatewayMetrics(Collector):
    """What the router and its cluster do.

    Args:
        router, cluster: read when Prometheus asks.
        clock: monotonic time.

    Attributes:
        requests: counts REST requests.
        calls: counts calls of gRPC clients.
        batches: sizes of the batches of commands.
    """

    def __init__(self, router: Router, cluster: Cluster, *, clock: Clock) -> None:
        self._router = router
        self._cluster = cluster
        self.requests = RequestMeter(clock)
        self.calls = CallMeter(clock)
        self.batches = Histogram(SIZE_BOUNDS)

    def collect(self) -> Iterable[Metric]:
        """Give every sample."""
        router, cluster = self._router, self._cluster
        yield from self.requests.collect()
        yield from self.calls.collect()
        yield ROUTER_IN_FLIGHT.of(router.in_flight)
        yield ROUTER_HELD.of(router.held_requests)
        yield ROUTER_LOOKUPS.of(router.lookups)
        yield STREAM_QUEUED.of(cluster.queued())
        yield STREAM_BATCH.histograms({(): self.batches})
        states = cluster.states()
        yield MEMBERS.each({(state.value.lower(),): states.count(state) for state in _MEMBER_STATES})
        yield JOINS.of(cluster.joins)
        yield DRAINS.of(cluster.drains)
        yield LOSSES.of(cluster.losses)
        yield EPOCH.of(cluster.epoch)
        placement = router.placement
        orphaned = len(placement.orphans()) if placement else 0
        yield SHARDS.each(
            {("owned",): placement.shards - orphaned if placement else 0, ("orphaned",): orphaned}
        )
        yield MOVES.of(router.moves)
        checks = cluster.readiness()
        yield READY.of(int(all(check.passed for check in checks)))
        yield CHECKS.each({(check.name,): int(check.passed) for check in checks})
        yield CLOSED.each(
            {(reason,): int(reason in router.closures) for reason in (STORE_GONE, FOREIGN_WRITER)}
        )


@final
class FeedMetrics(Collector):
    """What change feeds do."""

    def __init__(self, following: Following) -> None:
        self._following = following

    def collect(self) -> Iterable[Metric]:
        """Give every sample."""
        following = self._following
        yield FEEDS.of(following.open)
        yield FEED_CHANGES.of(following.delivered)
        yield FEED_CATCH_UPS.of(following.catch_ups)
        yield FEED_NOTED.of(following.log.noted)
        yield FEED_UNSURE.of(len(following.unsure))


_MEMBER_STATES: Final = (MemberState.AVAILABLE, MemberState.DRAINING)


@final
class RotationMetrics(Collector):
    """How far a rotation of the master key is."""

    def __init__(self, rotation: Rotations) -> None:
        self._rotation = rotation

    def collect(self) -> Iterable[Metric]:
        """Give every sample."""
        status = self._rotation.status()
        yield KEY_OBJECTS.each({(key_id,): objects for key_id, objects in objects_left(status).items()})
        yield ROTATION_RUNNING.of(int(status.running))
        yield ROTATION_BLOCKED.of(int(status.progress.phase is Phase.BLOCKED))
        yield ROTATION_DAMAGED.of(status.progress.damaged + status.progress.unreadable)


def _status_name(code: Any) -> str:
    """The name of a status, which ``grpc.aio`` gives as a number; ``UNKNOWN`` for what is none."""
    return code.name if isinstance(code, grpc.StatusCode) else _STATUSES.get(code, "UNKNOWN")


def objects_left(status: RotationStatus) -> dict[str, int]:
    """Objects that may still need each former key; empty where nobody has looked."""
    former = [key_id for key_id in status.readable if key_id != status.primary]
    progress, count = status.progress, status.count
    if progress.to_key == status.primary and progress.phase in WALKED:
        left = progress.total - progress.checked + progress.damaged + progress.unreadable
        return dict.fromkeys(former, 0 if progress.phase is Phase.FINISHED else max(0, left))
    if count is not None and count.complete:
        return {key_id: count.keys.get(key_id, 0) for key_id in former}
    return {}
