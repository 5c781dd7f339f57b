from __future__ import annotations

import pytest
from msgspec.structs import replace
from support.clocks import FakeClock
from support.families import check_families

from deltadatabase.gateway.asgi import Message, Receive, Scope, Send
from deltadatabase.gateway.metrics import FAMILIES, RequestMeter, RotationMetrics, objects_left, route_of
from deltadatabase.gateway.rotation import Count, Phase, Progress
from unit.gateway.rest_fakes import FakeRotation

NEW, OLD = "aa", "bb"
STATUS = replace(FakeRotation().status(), primary=NEW, readable=[NEW, OLD])
WALK = Progress(phase=Phase.RESEALING, to_key=NEW, total=100, checked=60)


@pytest.mark.parametrize(
    ("progress", "left"),
    [
        (Progress(), {}),
        (replace(WALK, phase=Phase.SETTLING, total=0, checked=0), {}),
        (WALK, {OLD: 40}),
        (replace(WALK, checked=100, damaged=2, unreadable=1, phase=Phase.BLOCKED), {OLD: 3}),
        (replace(WALK, checked=103, phase=Phase.FINISHED), {OLD: 0}),
        (replace(WALK, to_key=OLD, phase=Phase.FINISHED), {}),
    ],
)
def test_objects_left_for_a_former_key(progress: Progress, left: dict[str, int]) -> None:
    assert objects_left(replace(STATUS, progress=progress)) == left


def test_a_count_tells_it_before_a_rotation() -> None:
    count = Count(complete=True, total=5, checked=5, keys={NEW: 3, OLD: 2})
    assert objects_left(replace(STATUS, count=count)) == {OLD: 2}
    assert objects_left(replace(STATUS, count=replace(count, complete=False))) == {}


def test_the_samples_are_those_of_the_status() -> None:
    samples = [sample for metric in RotationMetrics(FakeRotation()).collect() for sample in metric.samples]
    assert {sample.name for sample in samples} == {
        "deltadatabase_rotation_running",
        "deltadatabase_rotation_blocked",
        "deltadatabase_rotation_objects_damaged",
    }


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/entity/notes", "/entity/{schema_id}"),
        ("/entities/notes", "/entities/{schema_id}"),
        ("/entities/notes/", "/entities/{schema_id}"),
        ("/entities/notes/a/b", "/entities/{schema_id}/{key}"),
        ("/elsewhere", "unmatched"),
    ],
)
def test_routes_that_the_framework_does_not_know(path: str, route: str) -> None:
    assert route_of({}, path) == route


def test_names_and_helps_keep_the_conventions() -> None:
    check_families(FAMILIES)


async def _call(
    meter: RequestMeter, clock: FakeClock, method: str, path: str, status: int, **found: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert meter.in_flight == 1
        clock.advance(0.25)
        scope.update(found)
        if not status:
            raise ConnectionError
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body"})

    async def nothing(message: Message | None = None) -> Message:
        return {}

    async def send(message: Message) -> None:
        pass

    scope = {"type": "http", "method": method, "path": path}
    if status:
        await meter.around(app)(scope, nothing, send)
    else:
        with pytest.raises(ConnectionError):
            await meter.around(app)(scope, nothing, send)


async def test_requests_are_counted_under_templates_and_known_methods_only() -> None:
    clock = FakeClock()
    meter = RequestMeter(clock)
    await _call(meter, clock, "GET", "/entity/chat.very-secret", 404)
    await _call(meter, clock, "BREW", "/entity/x", 405)
    await _call(meter, clock, "PUT", "/schema/x", 200, path_template="/schema/{schema_id}")
    await _call(meter, clock, "GET", "/no/such", 404)
    await _call(meter, clock, "PUT", "/entity/x", 0)
    samples = [sample for metric in meter.collect() for sample in metric.samples]
    counted = {
        (labels["route"], labels["method"], labels["code"]): value
        for name, labels, value, *_ in samples
        if name == "deltadatabase_http_requests_total" and value
    }
    assert counted == {
        ("/entity/{schema_id}", "GET", "404"): 1,
        ("/entity/{schema_id}", "other", "405"): 1,
        ("/schema/{schema_id}", "PUT", "200"): 1,
        ("unmatched", "GET", "404"): 1,
        ("/entity/{schema_id}", "PUT", "aborted"): 1,
    }
    assert meter.in_flight == 0
    sums = [
        value for name, labels, value, *_ in samples if name.endswith("_sum") and labels["method"] == "PUT"
    ]
    assert sorted(sums) == [0.0, 0.0, 0.25, 0.25]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/import/chat", "/import/{schema_id}"),
        ("/export/chat", "/export/{schema_id}"),
        ("/entity/chat", "/entity/{schema_id}"),
        ("/batch", "/batch"),
        ("/imports", "unmatched"),
    ],
)
def test_a_path_is_counted_under_its_template(path: str, route: str) -> None:
    scope: Scope = {"path_template": "/batch"} if path == "/batch" else {}
    assert route_of(scope, path) == route
