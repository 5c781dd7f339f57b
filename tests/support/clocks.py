"""Time and randomness that a test controls."""

from __future__ import annotations

from hashlib import sha256


class FakeClock:
    """Stands still until told; ``monotonic_s`` may also advance by itself a little per call."""

    def __init__(self, *, wall_ms: int = 1_700_000_000_000, tick_s: float = 0.0) -> None:
        self.now_ms = wall_ms
        self.now_s = 1_000.0
        self._tick_s = tick_s

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        self.now_s += self._tick_s
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.now_ms += int(seconds * 1000)


class SeededRandom:
    """Bytes from a seed: the same each run, never twice the same."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._count = 0

    def __call__(self, size: int, /) -> bytes:
        self._count += 1
        block = b"".join(
            sha256(f"{self._seed}/{self._count}/{part}".encode()).digest() for part in range(size // 32 + 1)
        )
        return block[:size]
