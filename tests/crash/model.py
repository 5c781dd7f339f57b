"""Which states a crash may leave, after any of the recorded steps.

The model is that of fsync(2), which promises no more than this:

- A file's bytes are durable once the file was synced. Until then the last bytes may be missing,
  all of them, or some or all be zeros; an overwrite may have taken place in part.
- A folder's names are durable once the *folder* was synced ("Calling fsync() does not necessarily
  ensure that the entry in the directory containing the file has also reached disk", Linux man
  page fsync(2)). Until then each change of a name may have taken place or not, independently of
  every other, also the two halves of a rename.
- syncfs(2) makes everything durable.

Real file systems promise more, each something else: T. S. Pillai et al., "All File Systems Are Not
Created Equal: On the Complexity of Crafting Crash-Consistent Applications", OSDI 2014. Like
their tool ALICE this one replays a recorded sequence with whatever is not ordered left out.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from crash.recording import BASE, Answered, Begun, Entry, MakeFolder, Step, Sync, Truncate, Write

Tree = frozenset[tuple[str, bytes | None]]
"""Every path below the base with its bytes; None: a folder."""


class Crash:
    """What is durable and what is not, after some steps."""

    def __init__(self) -> None:
        self.folders = {BASE}
        self._bytes: dict[int, bytes] = {}
        self._changes: dict[int, list[Truncate | Write]] = {}
        self._names: dict[tuple[int, str], list[int | None]] = {}
        self.begun: dict[str, int] = {}
        self.answered: dict[str, int] = {}

    def add(self, step: Step) -> None:
        """One more step took place before the crash."""
        match step:
            case MakeFolder(node):
                self.folders.add(node)
            case Entry(folder, name, node):
                self._names.setdefault((folder, name), [None]).append(node)
            case Truncate(node) | Write(node):
                self._changes.setdefault(node, []).append(step)
            case Sync(None):
                for file in list(self._changes):
                    self._settle(file)
                for folder in self.folders:
                    self._settle(folder)
            case Sync(node):
                self._settle(node)
            case Begun(path, version):
                self.begun[path] = version
            case Answered(path, version):
                self.answered[path] = version

    def _settle(self, node: int) -> None:
        self._bytes[node] = _applied(self._bytes.get(node, b""), self._changes.pop(node, []))
        for (folder, _), values in self._names.items():
            if folder == node:
                del values[:-1]

    def count(self) -> int:
        """How many combinations there are."""
        return math.prod(len(options) for options in self._options().values())

    def trees(self, count_max: int, rng: random.Random) -> Iterator[Tree]:
        """Every state that a crash may leave, or ``count_max`` drawn from them."""
        options = self._options()
        if self.count() <= count_max:
            choices: Iterator[Sequence[object]] = itertools.product(*options.values())
        else:
            choices = ([rng.choice(option) for option in options.values()] for _ in range(count_max))
        for choice in choices:
            yield self._tree(dict(zip(options, choice, strict=True)))

    def final(self) -> Tree:
        """The state if everything had become durable."""
        last: dict[object, object] = {key: values[-1] for key, values in self._names.items()}
        nodes = {node for values in self._names.values() for node in values if node is not None}
        for node in nodes - self.folders:
            last[node] = _applied(self._bytes.get(node, b""), self._changes.get(node, []))
        return self._tree(last)

    def _options(self) -> dict[object, Sequence[object]]:
        """For each name and each file, what it may be."""
        options: dict[object, Sequence[object]] = {
            key: list(dict.fromkeys(values)) for key, values in self._names.items()
        }
        nodes = {node for values in self._names.values() for node in values if node is not None}
        for node in sorted(nodes - self.folders):
            options[node] = _versions(self._bytes.get(node, b""), self._changes.get(node, []))
        return options

    def _tree(self, choice: dict[object, object]) -> Tree:
        found: list[tuple[str, bytes | None]] = []

        def walk(folder: int, prefix: str) -> None:
            for key in self._names:
                node = choice[key]
                if key[0] != folder or node is None:
                    continue
                path = prefix + key[1]
                if node in self.folders:
                    found.append((path, None))
                    walk(node, path + "/")  # type: ignore[arg-type]
                else:
                    found.append((path, choice[node]))  # type: ignore[arg-type]

        walk(BASE, "")
        return frozenset(found)


def _applied(data: bytes, changes: Sequence[Truncate | Write]) -> bytes:
    for change in changes:
        data = b"" if isinstance(change, Truncate) else data + change.data
    return data


def _versions(durable: bytes, changes: Sequence[Truncate | Write]) -> Sequence[bytes]:
    """What a file with unsynced changes may hold."""
    versions = [durable]
    for count, change in enumerate(changes):
        before = _applied(durable, changes[:count])
        if isinstance(change, Write):
            half = len(change.data) // 2
            rest = bytes(len(change.data) - half)
            versions += [before + change.data[:half], before + bytes(len(change.data))]
            versions += [before + change.data[:half] + rest, before + rest + change.data[-half:]]
            # The truncation is not durable, the bytes are in part.
            versions.append(before + change.data[:half] + durable[len(before) + half :])
        versions.append(_applied(before, [change]))
    return list(dict.fromkeys(versions))


def materialize(tree: Tree, base: Path) -> None:
    """Make the state real in an empty folder."""
    for path, data in sorted(tree, key=lambda item: item[0]):
        if data is None:
            (base / path).mkdir(mode=0o700)
        else:
            (base / path).write_bytes(data)
