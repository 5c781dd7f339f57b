"""Many names in order, packed: a million of them take little more than their letters."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

BLOCK_NAMES_MAX: Final = 256
BLOCK_OVERHEAD_BYTES: Final = 250
"""Of a block: two text objects, the copy of its first name, and its places in two lists."""
_SEPARATOR: Final = "\0"
"""Stands before, between and after the names of a block; no name holds it."""


class SortedNames:
    """A set of texts in the order of their code points, which is the order of their UTF-8 bytes.

    They lie in blocks of a few hundred, each of them one text, since a million small objects would
    take three times the memory. A change takes one block apart: about 10 µs.

    Args:
        suffix: names are sorted as if each ended with it.
        block_names_max: names of a block.
    """

    def __init__(self, suffix: str = "", *, block_names_max: int = BLOCK_NAMES_MAX) -> None:
        self._suffix = suffix
        self._block_names_max = block_names_max
        self._blocks: list[str] = []
        self._firsts: list[str] = []
        self._count = 0
        self._letters = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """About what it takes in memory, if the names are ASCII."""
        return self._letters + BLOCK_OVERHEAD_BYTES * len(self._blocks)

    def __contains__(self, name: str) -> bool:
        index = self._index(self._order(name))
        return index >= 0 and f"{_SEPARATOR}{name}{_SEPARATOR}" in self._blocks[index]

    def add(self, name: str) -> None:
        """Take a name in; one that is there is fine."""
        order = self._order(name)
        index = max(self._index(order), 0)
        if not self._blocks:
            self._replace(index, index, [name])
            return
        block = self._blocks[index]
        if f"{_SEPARATOR}{name}{_SEPARATOR}" in block:
            return
        names = _unpacked(block)
        place = bisect_left(names, order, key=self._order)
        if len(names) >= self._block_names_max:
            names.insert(place, name)
            self._replace(index, index + 1, names)
            return
        # Nearly always this way, which is half the work.
        at = len(block) - 1
        if place < len(names):
            at = block.index(f"{_SEPARATOR}{names[place]}{_SEPARATOR}")
        self._blocks[index] = f"{block[:at]}{_SEPARATOR}{name}{block[at:]}"
        if place == 0:
            self._firsts[index] = order
        self._count += 1
        self._letters += len(name) + 1

    def discard(self, name: str) -> None:
        """Take a name out, if it is there."""
        if name in self:
            index = self._index(self._order(name))
            names = _unpacked(self._blocks[index])
            names.remove(name)
            self._replace(index, index + 1, names)

    def update(self, names: Iterable[str]) -> None:
        """Take in many names, in any order: far cheaper than one by one."""
        coming = sorted(names, key=self._order) if self._suffix else sorted(names)
        begin = 0
        # Which of the coming names go into which block.
        parts: list[tuple[int, int, int]] = []
        while begin < len(coming):
            index = max(self._index(self._order(coming[begin])), 0)
            end = len(coming)
            if index + 1 < len(self._firsts):
                end = bisect_left(coming, self._firsts[index + 1], begin, key=self._order)
            parts.append((index, begin, end))
            begin = end
        blocks: list[str] = []
        firsts: list[str] = []
        done = 0
        for index, begin, end in parts:
            blocks += self._blocks[done:index]
            firsts += self._firsts[done:index]
            present = _unpacked(self._blocks[index]) if self._blocks else []
            self._append(blocks, firsts, self._united(present, coming[begin:end]))
            done = index + 1
        self._blocks = blocks + self._blocks[done:]
        self._firsts = firsts + self._firsts[done:]

    def after(self, after: str, prefix: str = "", *, count: int | None = None) -> list[str]:
        """The next names behind ``after`` (which need not be there) that begin with ``prefix``."""
        return list(islice(self._walk(after, prefix), count))

    def _walk(self, after: str, prefix: str) -> Iterator[str]:
        order = self._order(after) if after else ""
        behind = order >= prefix
        begin = order if behind else prefix
        bisect = bisect_right if behind else bisect_left
        index = max(self._index(begin), 0)
        names = _unpacked(self._blocks[index]) if self._blocks else []
        start = bisect(names, begin, key=self._order)
        while names:
            for name in islice(names, start, None):
                if name.startswith(prefix):
                    yield name
                elif not self._order(name).startswith(prefix):
                    return
            start = 0
            index += 1
            names = _unpacked(self._blocks[index]) if index < len(self._blocks) else []

    def _order(self, name: str) -> str:
        return name + self._suffix

    def _index(self, order: str) -> int:
        """The block where a name of this order is, or would go; -1: before the first."""
        return bisect_right(self._firsts, order) - 1

    def _united(self, present: list[str], coming: list[str]) -> list[str]:
        self._count -= len(present)
        self._letters -= sum(map(len, present)) + len(present)
        both = present + coming
        both.sort(key=self._order if self._suffix else None)
        return list(dict.fromkeys(both))

    def _append(self, blocks: list[str], firsts: list[str], names: list[str]) -> None:
        """Pack names and put their blocks at the end of these lists."""
        self._count += len(names)
        self._letters += sum(map(len, names)) + len(names)
        size = len(names)
        if size > self._block_names_max:
            # Half full, so that they have room for more.
            size = -(-size // -(-size // (self._block_names_max // 2)))
        for begin in range(0, len(names), size or 1):
            part = names[begin : begin + size]
            blocks.append(_SEPARATOR + _SEPARATOR.join(part) + _SEPARATOR)
            firsts.append(self._order(part[0]))

    def _replace(self, begin: int, end: int, names: list[str]) -> None:
        for block in self._blocks[begin:end]:
            self._count -= block.count(_SEPARATOR) - 1
            self._letters -= len(block) - 1
        blocks: list[str] = []
        firsts: list[str] = []
        self._append(blocks, firsts, names)
        self._blocks[begin:end] = blocks
        self._firsts[begin:end] = firsts


def _unpacked(block: str) -> list[str]:
    return block[1:-1].split(_SEPARATOR)
