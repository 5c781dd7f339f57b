"""``python -m bench.disk``: three ways to make documents durable in a directory, beside each other.

One file after the other, as a floor; many files synced together, then renamed (``storage.batch``);
one journal appended and synced once for as many (``storage.journal``). Processor time is the part
of the figures that other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.workloads import DOCUMENTS, durable_files
from deltadatabase.storage.disk import OsDisk

SEALED_BYTES = 1300
BATCHES = (1, 8, 32, 64)

Way = Callable[[Path, int], None]
"""Makes ``count`` documents durable in a folder."""


def many_files(folder: Path, count: int) -> None:
    """Files in a folder of their own, one sync of the file system, renames, one sync of the folder."""
    disk, data = OsDisk(), memoryview(bytes(SEALED_BYTES))
    staged = [folder / f"{number}.staged" for number in range(count)]
    opened = [disk.open_new(path) for path in staged]
    for fd in opened:
        disk.write(fd, data)
    disk.syncfs(opened[0])
    first = time.monotonic_ns()
    for number, (path, fd) in enumerate(zip(staged, opened, strict=True)):
        disk.close(fd)
        disk.rename(path, folder / f"{(first + number) % DOCUMENTS}")
    names = disk.open_folder(folder)
    disk.fsync(names)
    disk.close(names)


def journal(folder: Path, count: int) -> None:
    """One write of as many bytes behind the others, one sync of them."""
    disk = OsDisk()
    fd = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    disk.write(fd, memoryview(bytes(SEALED_BYTES * count)))
    disk.sync_data(fd)
    disk.close(fd)


def measure(way: Way, folder: Path, batch: int, seconds: float) -> tuple[float, float]:
    """Documents a second, and microseconds of processor time for each."""
    folder.mkdir(exist_ok=True)
    count, cpu_s, began_s = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() < began_s + seconds:
        way(folder, batch)
        count += batch
    return count / (time.perf_counter() - began_s), 1e6 * (time.process_time() - cpu_s) / count


def main(arguments: Sequence[str]) -> None:
    """Measure in rounds; print a Markdown table of medians and of ratios to the floor."""
    parser = argparse.ArgumentParser(prog="python -m bench.disk", description=__doc__)
    parser.add_argument("-folder", type=Path, help="where the temporary folder goes: the disk under test")
    parser.add_argument("-rounds", type=int, default=5)
    parser.add_argument("-seconds", type=int, default=1)
    options = parser.parse_args(arguments)
    ways = [(name, way, batch) for batch in BATCHES for name, way in WAYS.items()]
    found: list[list[tuple[float, float, float]]] = [[] for _ in ways]
    with tempfile.TemporaryDirectory(prefix="deltadb-disk-", dir=options.folder) as folder:
        for _ in range(options.rounds):
            floor = durable_files(Path(folder) / "floor", options.seconds).rate
            for (name, way, batch), rows in zip(ways, found, strict=True):
                rate, cpu_us = measure(way, Path(folder) / name.split()[0], batch, options.seconds)
                rows.append((rate, cpu_us, rate / floor))
    print("| way | documents a sync | documents/s | CPU µs each | of write+fsync+rename |")
    print("|---|--:|--:|--:|--:|")
    for (name, _, batch), rows in zip(ways, found, strict=True):
        rate, cpu_us, ratio = (statistics.median(row[column] for row in rows) for column in range(3))
        print(f"| {name} | {batch} | {rate:,.0f} | {cpu_us:.1f} | {ratio:.1f} |")


WAYS: dict[str, Way] = {"files synced together": many_files, "journal": journal}

if __name__ == "__main__":
    main(sys.argv[1:])
