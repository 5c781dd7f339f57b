"""What every harness over sockets counts and judges."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from support.programs import Program

from fuzz.engine import resident_bytes

GROWTH_BYTES_MAX = 96 << 20
"""So much more than after its first requests may a server hold at the end: its cache is 16 MiB, what a
client stored before is on disk, and the allocator keeps what it once had."""
_BAD_WORDS = ("Traceback", "unexpected failure", "internal error", "panicked")
_SHOWN_MAX = 5
SETTLE_S = 0.5


@dataclass
class Tally:
    """Answers by kind, and what was wrong.

    Attributes:
        answers: how many of each; ``none``: the connection ended without one.
        sent: requests or messages sent.
        wrong: sentences, with the request that did it.
        resident: bytes of each program after its first requests and at the end.
    """

    answers: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    wrong: list[str] = field(default_factory=list)
    resident: dict[str, tuple[int, int]] = field(default_factory=dict)

    def found(self, what: str, data: bytes = b"") -> None:
        """Note something wrong."""
        self.wrong.append(f"{what} after {data[:600]!r}" if data else what)

    def summary(self, seconds: float) -> str:
        """All of it in a few lines."""
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.answers.items()))
        sizes = ", ".join(
            f"{name} {before >> 20} MiB before and {after >> 20} MiB after"
            for name, (before, after) in self.resident.items()
        )
        wrong = "".join(f"\nWRONG {what}" for what in self.wrong[:_SHOWN_MAX])
        rate = self.sent / max(seconds, 1e-3)
        return (
            f"{self.sent} sent in {seconds:.0f} s ({rate:.0f}/s); {counts}; {sizes}; "
            f"{len(self.wrong)} wrong{wrong}"
        )


class Watch:
    """Sees whether programs live, stay small and log nothing that they must not."""

    def __init__(self, tally: Tally, programs: dict[str, Program]) -> None:
        self._tally = tally
        self._programs = programs
        self._before = {name: resident_bytes(program.process.pid) for name, program in programs.items()}

    def begin(self) -> None:
        """Count from here: the first requests load code and fill pools."""
        self._before = {
            name: resident_bytes(program.process.pid)
            for name, program in self._programs.items()
            if program.process.poll() is None
        }

    def alive(self) -> bool:
        return all(program.process.poll() is None for program in self._programs.values())

    def judge(self) -> None:
        """Look at the end."""
        if self._tally.wrong:
            time.sleep(SETTLE_S)  # What crashed may be on its way out.
        for name, program in self._programs.items():
            if (code := program.process.poll()) is not None:
                self._tally.found(f"{name} ended with exit code {code}")
                continue
            now = resident_bytes(program.process.pid)
            self._tally.resident[name] = (self._before[name], now)
            if now - self._before[name] > GROWTH_BYTES_MAX:
                self._tally.found(f"{name} grew by {(now - self._before[name]) >> 20} MiB")
            output = Path(program.log).read_text(errors="replace")
            for word in _BAD_WORDS:
                if word in output:
                    at = output.index(word)
                    self._tally.found(f"{name} logged {output[max(0, at - 200) : at + 1500]!r}")
                    break
