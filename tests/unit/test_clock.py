from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from deltadatabase.clock import SystemRandom, rfc3339


@pytest.mark.parametrize(
    ("wall_ms", "text"),
    [
        (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (2**64 - 1, "9999-12-31T23:59:59.999Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
        (-(2**63), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_beyond_all_calendars_is_still_shown(wall_ms, text):
    assert rfc3339(wall_ms) == text


def test_no_random_byte_is_handed_out_twice():
    random = SystemRandom()
    taken = [random(size) for size in (1, 16, 44, 4000, 44, 5000, 32)]
    assert [len(each) for each in taken] == [1, 16, 44, 4000, 44, 5000, 32]
    seen: set[bytes] = set()
    lock = threading.Lock()

    def draw() -> None:
        mine = [random(16) for _ in range(20_000)]
        with lock:
            seen.update(mine)

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80_000


def test_a_forked_process_draws_bytes_of_its_own():
    program = """
import os, sys
from deltadatabase.clock import system_random
system_random(16)
ours, theirs = os.pipe()
if os.fork() == 0:
    os.write(theirs, system_random(16))
    os._exit(0)
mine = system_random(16)
assert os.read(ours, 16) != mine
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
