"""What goes wrong, and when: an endless series of faults from a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

PLANNED: Final = ("join", "leave", "rolling-restart")
"""Moves that may not fail a request."""

CRASHES: Final = ("kill-worker", "pause-worker", "nudge-worker", "kill-main", "pause-main")
"""What happens to processes, on every store."""

NETWORK: Final = (
    "delay",
    "drop-before",
    "drop-after",
    "truncate",
    "refuse-before",
    "refuse-after",
    "late",
    "twice",
)
"""What the proxy before an S3 server does to requests; see ``proxy.py``."""

STORE: Final = {
    "s3": (*NETWORK, "restart-store", "kill-store", "pause-store"),
    "directory": ("stutter",),
}
"""What happens to each store."""

DISK: Final = ("disk-full", "read-only")
"""What happens to a directory on a disk of its own; making one takes the right to mount."""

OUTAGES: Final = (*NETWORK, *DISK, "pause-store")
"""Some of these last longer than a request may."""

MEANING: Final = {
    "kill-worker": "kill -9 of a proc worker; another one starts",
    "pause-worker": "a proc worker is stopped for longer than its membership, then goes on",
    "nudge-worker": "a proc worker is stopped for a moment",
    "kill-main": "kill -9 of the main worker; it starts again on the same state directory",
    "pause-main": "the main worker is stopped for some seconds, then goes on",
    "join": "a proc worker joins",
    "leave": "a proc worker gets SIGTERM and leaves",
    "rolling-restart": "every proc worker, one after the other, gets SIGTERM and starts again",
    "stutter": "every proc worker is stopped and resumed at random moments, perhaps inside a lock",
    "disk-full": "the store's disk is filled up",
    "read-only": "the store's disk is mounted read-only",
    "restart-store": "the S3 server ends and starts again on its data",
    "kill-store": "kill -9 of the S3 server; it starts again on its data",
    "pause-store": "the S3 server is stopped for some seconds, then goes on",
    "delay": "requests to the store are held up, some for longer than the worker waits",
    "drop-before": "the connection breaks and the store never gets the request",
    "drop-after": "the store got the request, and its reply is lost",
    "truncate": "the store's reply breaks off in the middle",
    "refuse-before": "503, and the store never gets the request",
    "refuse-after": "503, but the store got the request",
    "late": "the connection breaks, and the store gets the request seconds later",
    "twice": "the store gets the request twice; the second reply is passed on",
}


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: a key of ``MEANING``.
        seconds: how long it lasts, where it has a length.
        share: the part of the requests that a network fault hits.
        pick: 0 to 1: which of the workers.
        renamed: the worker that starts has a new worker id, not that of the dead one.
        beside: a network fault at the same time, or "".
    """

    kind: str
    seconds: float
    share: float
    pick: float
    renamed: bool
    beside: str = ""

    def __str__(self) -> str:
        return f"{self.kind}+{self.beside}" if self.beside else self.kind


def kinds_of(store: str, *, own_disk: bool) -> tuple[str, ...]:
    """Every kind of fault that can happen on a store."""
    return (*CRASHES, *PLANNED, *STORE[store], *(DISK if store == "directory" and own_disk else ()))


def schedule(seed: int, kinds: Sequence[str], *, network: bool) -> Iterator[Fault]:
    """Faults without end. Each round has every kind once, in an order of its own.

    Args:
        seed: the same seed gives the same faults.
        kinds: of faults.
        network: a third of the crashes have a network fault beside them.
    """
    rng = random.Random(seed)
    while True:
        for kind in rng.sample(list(kinds), len(kinds)):
            beside = rng.choice(NETWORK) if rng.random() < 1 / 3 else ""
            yield Fault(
                kind=kind,
                seconds=_seconds(kind, rng),
                share=rng.choice([0.3, 0.6, 1.0]),
                pick=rng.random(),
                renamed=rng.random() < 0.5,
                beside=beside if network and kind in CRASHES else "",
            )


def _seconds(kind: str, rng: random.Random) -> float:
    if kind == "pause-worker":
        return rng.uniform(3.0, 5.0)  # The membership ends after 2.5 s.
    if kind == "nudge-worker":
        return rng.uniform(0.1, 2.0)
    if kind in ("kill-worker", "kill-main"):
        return rng.uniform(0.0, 1.0)  # Until there is another.
    if kind in OUTAGES and rng.random() < 1 / 8:
        return rng.uniform(11.0, 13.0)  # The main worker gives a request up after 10 s.
    return rng.uniform(1.5, 3.5)
