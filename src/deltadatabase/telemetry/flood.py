"""Bounds how many lines others can cause in a log. Pure: time is an argument."""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple, final

WINDOW_S: Final = 60.0
LINES_MAX: Final = 20
"""Lines of one action and source in a window."""
TOTAL_MAX: Final = 600
"""Lines of all sources together in a window: many addresses are easily had."""
SOURCES_MAX: Final = 1000
"""Sources told apart in a window; what comes from more is counted together."""
SUMMARIES_MAX: Final = 20
"""Sources that a window's end names, those with the most suppressed lines; the rest in one sum."""
IPV6_PREFIX: Final = 64
"""One subscriber has all addresses of such a network, so they count as one source."""


class Suppressed(NamedTuple):
    """Lines of one action that were not written.

    Attributes:
        action, outcome: of the lines.
        source: where they came from; "" for several.
        lines: how many.
        sources: how many sources are summed up here; 0 where they were not told apart.
    """

    action: str
    outcome: str
    source: str
    lines: int
    sources: int


_Name = tuple[str, str, str]


@final
class FloodGate:
    """Lets the first lines of a minute pass and counts the others, in bounded memory.

    A minute begins with the first line after the one before it ended. Whoever calls asks
    ``ended`` first, and writes what it gives.
    """

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._total = 0
        self._counts: dict[_Name, int] = {}
        self._suppressed: dict[_Name, int] = {}
        self._reporting = False

    def passes(self, action: str, outcome: str, source: str, now_s: float) -> bool:
        """Whether this line may be written; counted otherwise."""
        if self._began_s is None:
            self._began_s = now_s
        name = (action, outcome, source_of(source))
        if name not in self._counts and len(self._counts) >= SOURCES_MAX:
            name = (action, outcome, "")
        count = self._counts[name] = self._counts.get(name, 0) + 1
        if count <= LINES_MAX and self._total < TOTAL_MAX:
            self._total += 1
            return True
        self._suppressed[name] = self._suppressed.get(name, 0) + 1
        return False

    def unreported_until_s(self) -> float | None:
        """When a window with suppressed lines ends, told once for each; else None."""
        if self._began_s is None or not self._suppressed or self._reporting:
            return None
        self._reporting = True
        return self._began_s + WINDOW_S

    def ended(self, now_s: float) -> list[Suppressed]:
        """What the window suppressed, if it is over by now; a new one may begin then."""
        if self._began_s is None or now_s - self._began_s < WINDOW_S:
            return []
        return self.end()

    def end(self) -> list[Suppressed]:
        """End the window now."""
        most = sorted(self._suppressed.items(), key=lambda item: -item[1])
        named = [Suppressed(*name, count, 1 if name[2] else 0) for name, count in most[:SUMMARIES_MAX]]
        rest: dict[tuple[str, str], tuple[int, int]] = {}
        for (action, outcome, _), count in most[SUMMARIES_MAX:]:
            lines, sources = rest.get((action, outcome), (0, 0))
            rest[action, outcome] = (lines + count, sources + 1)
        self._began_s = None
        self._total = 0
        self._counts = {}
        self._suppressed = {}
        self._reporting = False
        return named + [Suppressed(*kind, "", lines, sources) for kind, (lines, sources) in rest.items()]


def source_of(address: str) -> str:
    """The address, or for IPv6 its network of 64 bits: one host may use any address of it."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), IPV6_PREFIX), strict=False))
