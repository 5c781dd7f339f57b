"""A stream of bytes as lines. Pure."""

from __future__ import annotations


class Lines:
    """Cuts blocks into lines, whose ends are left out."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    @property
    def rest(self) -> bytes:
        """What came behind the last whole line."""
        return b"".join(self._parts)

    def feed(self, block: bytes) -> list[bytes]:
        """Take the next block; return the lines that it completes."""
        if b"\n" not in block:
            # A long line is put together once, not again with each of its blocks.
            self._parts.append(block)
            return []
        *lines, rest = (self.rest + block).split(b"\n")
        self._parts = [rest]
        return lines
