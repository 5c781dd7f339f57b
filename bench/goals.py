"""The goals, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from bench.stats import Spread, ratios, spread

MAIN_MIB: Final = 100
WORKER_MIB: Final = 90
GROWTH: Final = 1.03
WARM: Final = 0.2
"""The part of the requests after which the memory should not grow any more."""

Goal = tuple[str, str, bool | None]
"""The goal, what was measured, and whether it is met; None: it was not measured."""
Row = Mapping[str, Any]


def goals(data: Mapping[str, Any]) -> list[Goal]:
    """Each goal, in the order in which they were set."""
    parts = data["parts"]
    return [
        *_reads(parts),
        *_durable(parts),
        *_objects(parts),
        _many(parts),
        *_memory(parts),
        (
            "error answers and damaged documents: 0",
            str(data["errors"] + data["damaged"]),
            data["errors"] + data["damaged"] == 0,
        ),
    ]


def _reads(parts: Mapping[str, Any]) -> Iterator[Goal]:
    hot = _rows(parts, "get", "GET hot")
    known = _rows(parts, "get", "GET random")
    for name, rows in (("GET hot", hot), ("GET random", known)):
        yield _least(
            f"{name}, embedded, of the bare ASGI application", 0.70, rows, "deltadb serve", "bare ASGI"
        )
    yield _least(
        "GET random, main + 1 worker, of the bare ASGI application",
        0.50,
        known,
        "main + 1 worker",
        "bare ASGI",
    )
    slow = known.get("main + 1 worker")
    yield (
        "the same, p99 < 10 ms",
        f"{slow['p99_ms']:.1f} ms" if slow else "",
        slow["p99_ms"] < 10 if slow else None,
    )
    yield _hop_alone(known)
    for name, rows in (("GET hot", hot), ("GET random", known)):
        yield _least(f"{name}, embedded, of etcd", 1.3, rows, "deltadb serve", "etcd")
    yield _least("GET random, main + 1 worker, of etcd", 1.3, known, "main + 1 worker", "etcd")


def _hop_alone(rows: Mapping[str, Row]) -> Goal:
    """How near the hop is to one that costs what the bare relay adds to the bare application, and no more."""
    text = "GET random, main + 1 worker, of `deltadb serve` with the hop of the bare relay ≥ 0.90"
    names = ("main + 1 worker", "deltadb serve", "bare relay", "bare ASGI")
    if not rows.keys() >= set(names):
        return text, "", None
    found = spread(
        [
            mine * (1 / embedded + 1 / relay - 1 / bare)
            for mine, embedded, relay, bare in zip(*(_rates(rows[name]) for name in names), strict=True)
        ]
    )
    return text, _shown(found), found.median >= 0.90


def _durable(parts: Mapping[str, Any]) -> Iterator[Goal]:
    loop = "write+fsync+rename"
    for name, rows in (
        ("PUT on a directory", _rows(parts, "put", "PUT")),
        ("PUT on a directory for 60 s", _rows(parts, "sustained", "PUT")),
    ):
        yield _least(f"{name}, embedded, of the loop", 3.0, rows, "deltadb serve", loop)
        yield _least(f"{name}, embedded, of etcd", 0.7, rows, "deltadb serve", "etcd")
    rows = _rows(parts, "put", "PUT")
    yield _least("PUT on a directory, main + 2 workers, of the loop", 1.5, rows, "main + 2 workers", loop)


def _objects(parts: Mapping[str, Any]) -> Iterator[Goal]:
    raw, gateway = "obstore alone", "bare gateway"
    plain, meta = "deltadb serve", "deltadb serve, meta files"
    stores = _stores(parts, "s3") or ["S3"]
    for store in stores:
        new = _rows(parts, "s3", "PUT new", store)
        yield _least(f"PUT new on {store} of obstore alone", 0.70, new, plain, raw)
        yield _least(f"PUT new on {store} with meta files of obstore alone", 0.50, new, meta, raw)
        yield _least(f"PUT new on {store} of the bare gateway", 0.90, new, plain, gateway)
        again = _rows(parts, "s3", "PUT overwrite", store).get(plain)
        asked = sum(again["store_requests"].values()) if again else 0.0
        yield (
            f"PUT overwrite on {store}: one store request each",
            f"{asked:.3f}" if again else "",
            asked <= 1.01 if again else None,
        )
        missed = _rows(parts, "s3", "GET miss", store)
        yield _least(f"GET miss on {store} of obstore alone", 0.70, missed, plain, raw)
        yield _least(f"GET miss on {store} of the bare gateway", 0.90, missed, plain, gateway)
        yield _least(
            f"PUT hot key on {store} of obstore alone, one after the other",
            5.0,
            _rows(parts, "s3", "PUT hot key", store),
            plain,
            raw,
        )
    for store in _stores(parts, "far") or ["S3 + 5 ms"]:
        new = _rows(parts, "far", "PUT new", store)
        yield _least(f"PUT new on {store} of obstore alone", 0.90, new, plain, raw)
        yield _least(f"PUT new on {store} with meta files of obstore alone", 0.50, new, meta, raw)
        yield _least(f"PUT new on {store} of the bare gateway", 0.90, new, plain, gateway)
        missed = _rows(parts, "far", "GET miss", store)
        yield _least(f"GET miss on {store} of obstore alone", 0.90, missed, plain, raw)
        yield _least(f"GET miss on {store} of the bare gateway", 0.90, missed, plain, gateway)


def _many(parts: Mapping[str, Any]) -> Goal:
    rows = list(parts.get("many", {}).get("rows", ()))
    text = "GET random among many entities: p50 within 1.3 of that among a thousand"
    if len(rows) < 2:
        return text, "", None
    found = spread(
        [
            more["load"]["p50_ms"] / less["load"]["p50_ms"]
            for less, more in zip(rows[0]["rounds"], rows[1]["rounds"], strict=True)
        ]
    )
    return f"{text} ({rows[1]['who']})", _shown(found), found.median <= 1.3


def _memory(parts: Mapping[str, Any]) -> Iterator[Goal]:
    part = parts.get("memory")
    worker_mib = WORKER_MIB + (part["cache_mib"] if part else 0)
    names = part["processes"] if part else ("main-worker", "proc-1")
    for name, limit in zip(names, (MAIN_MIB, worker_mib), strict=True):
        most = max(sample[name] for sample in part["samples"]) if part else 0.0
        text = f"memory of {name} ≤ {limit} MiB" + (" (90 MiB and its cache)" if limit > MAIN_MIB else "")
        yield text, f"{most:.0f} MiB" if part else "", most <= limit if part else None
    text = "memory flat: from a fifth of the requests to the end, at most 3 % more"
    if not part:
        yield text, "", None
        return
    last = part["samples"][-1]
    early = next(each for each in part["samples"] if each["requests"] >= WARM * last["requests"])
    grown = {name: last[name] / early[name] for name in names}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in grown.items())
    yield f"{text} ({last['requests']:,} requests)", shown, max(grown.values()) <= GROWTH


def _rows(parts: Mapping[str, Any], part: str, what: str, store: str = "") -> dict[str, Row]:
    """The rows of one operation, by who did it."""
    return {
        row["who"]: row
        for row in parts.get(part, {}).get("rows", ())
        if row["what"].startswith(what) and (not store or row["what"].endswith(f", {store}"))
    }


def _stores(parts: Mapping[str, Any], part: str) -> list[str]:
    names = (row["what"].rpartition(", ")[2] for row in parts.get(part, {}).get("rows", ()))
    return list(dict.fromkeys(names))


def _least(text: str, goal: float, rows: Mapping[str, Row], mine: str, theirs: str) -> Goal:
    text = f"{text} ≥ {goal:.2f}"
    if mine not in rows or theirs not in rows:
        return text, "", None
    found = ratios(*(_rates(rows[who]) for who in (mine, theirs)))
    return text, _shown(found), found.median >= goal


def _rates(row: Row) -> list[float]:
    return [each["load"]["requests"] / each["load"]["seconds"] for each in row["rounds"]]


def _shown(found: Spread) -> str:
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})"
