"""A store that is full, read-only, gone or silent, under writers that count what was acknowledged.

The directory's troubles are real ones: a small file system of its own, mounted by the test, which
only root may do. Where that is refused the tests are skipped, and fail in CI.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from integration.cluster import MASTER_KEY, Cluster, discreet_programs, get, probe, put, s3_arguments
from support.journal import wait_until_written
from support.programs import Programs, free_port, wait_for, wait_until_ready
from support.weed import S3Server, running_weed

pytestmark = pytest.mark.integration

RECOVERY_S = 15.0
WRITERS = 2


# -- file systems that come and go ------------------------------------------------------------


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        assert "CI" not in os.environ, done.stderr
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


def unmount(where: Path) -> None:
    # Lazily: files that the programs hold open do not keep it.
    subprocess.run(["umount", "-l", str(where)], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    where = tmp_path / "db"
    where.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m,mode=0700", "none", str(where))
    try:
        yield where
    finally:
        unmount(where)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as programs:
        yield programs


def serve(started: Programs, db: Path, *flags: str) -> str:
    """Start the embedded worker on a directory; its URL."""
    port = free_port()
    program = started.start(
        "deltadb",
        "serve",
        f"-shared-fs={db}",
        f"-state-dir={started.folder / 'state'}",
        f"-rest-addr=127.0.0.1:{port}",
        "-dev",
        *flags,
        environ={"MASTER_KEY": MASTER_KEY},
    )
    wait_until_ready(f"http://127.0.0.1:{port}", program)
    return f"http://127.0.0.1:{port}"


# -- writers that count -----------------------------------------------------------------------


@dataclass
class Account:
    """What writers were told, and what a client may conclude from it.

    Attributes:
        statuses: of all writes.
        last: the last number of each key that was acknowledged.
        open: numbers after it whose outcome nobody knows.
        unlive: answers of ``/livez`` other than 200.
        paused: set while the writers are to write nothing.
        answered: lets the writers' answers after this moment be told from those before.
    """

    url: str
    statuses: Counter[int] = field(default_factory=Counter)
    last: dict[str, int] = field(default_factory=dict)
    open: dict[str, set[int]] = field(default_factory=dict)
    unlive: list[int] = field(default_factory=list)
    paused: threading.Event = field(default_factory=threading.Event)

    def note(self, key: str, number: int, status: int) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.last[key] = number
            self.open[key] = set()
        elif status not in (503, 507):
            self.open.setdefault(key, set()).add(number)

    def lost(self) -> list[str]:
        """Every key whose stored number contradicts what was said."""
        found = []
        for key, last in self.last.items():
            answer = get(self.url, key, "load")
            if answer.status_code != 200 or answer.json() not in {last, *self.open[key]}:
                found.append(f"key={key} acknowledged={last} open={self.open[key]} stored={answer.text}")
        return found


@contextlib.contextmanager
def counting(url: str) -> Iterator[Account]:
    """Writers and a probe of ``/livez`` at work; afterwards nothing acknowledged may be missing."""
    account = Account(url)
    ends = threading.Event()

    def write(key: str) -> None:
        number = 0
        with httpx.Client(timeout=30.0) as client:
            while not ends.is_set():
                if account.paused.is_set():
                    time.sleep(0.01)
                    continue
                number += 1
                try:
                    answer = client.put(f"{url}/entity/load", content=f'{{"{key}": {number}}}')
                    account.note(key, number, answer.status_code)
                except httpx.TransportError:
                    account.note(key, number, 0)
                time.sleep(0.01)

    def watch() -> None:
        while not ends.is_set():
            status = probe(url, "/livez")[0]
            if status != 200:
                account.unlive.append(status)
            time.sleep(0.1)

    threads = [threading.Thread(target=write, args=(f"w{number}",)) for number in range(WRITERS)]
    threads.append(threading.Thread(target=watch))
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: account.statuses[200] > 20, "the writers write")
        yield account
        before = account.statuses[200]
        wait_for(lambda: account.statuses[200] > before + 20, "the writers write again", RECOVERY_S)
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    assert account.unlive == []
    assert account.lost() == []


def expect(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, f"{answer.request.method} {answer.status_code} {answer.text}"
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1


def staged(db: Path) -> Sequence[str]:
    """Files of commits under way."""
    return sorted(path.name for path in (db / "cluster" / ".tmp").glob("*/*"))


def fill(where: Path) -> Path:
    """A file that leaves no room."""
    ballast = where / ".ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    return ballast


def refused_but_readable(url: str, code: str, status: int) -> None:
    """Writes are refused with this code; the cached document and an uncached one are served."""
    for _ in range(3):
        for answer in (
            put(url, "cached", '"new"'),
            put(url, "fresh", '"new"'),
            httpx.delete(f"{url}/entity/notes", params={"key": "cached"}, timeout=20.0),
        ):
            expect(answer, status)
            assert answer.json()["error"] == code, answer.text
        assert get(url, "cached").json() == "old"
        assert get(url, "fresh").status_code == 404


# -- the directory ----------------------------------------------------------------------------


def test_a_full_disk_refuses_writes_and_serves_reads(started: Programs, disk: Path) -> None:
    url = serve(started, disk)
    expect(put(url, "cached", '"old"'), 200)
    with counting(url) as account:
        ballast = fill(disk)
        wait_for(lambda: account.statuses[507] > 10, "the disk is full")
        refused_but_readable(url, "store_full", 507)
        few = len(staged(disk))
        wait_for(lambda: account.statuses[507] > 200, "many refusals")
        assert len(staged(disk)) <= max(few, WRITERS + 2), "temporary files are left"
        ballast.unlink()
        wait_for(lambda: put(url, "cached", '"newer"').status_code == 200, "room again", RECOVERY_S)
    assert set(account.statuses) == {200, 507}
    assert get(url, "cached").json() == "newer"
    # The account can tell: had one more write been acknowledged, it would be missed.
    account.note("w0", account.last["w0"] + 1, 200)
    assert len(account.lost()) == 1
    assert staged(disk) == []


def test_a_read_only_disk_refuses_writes_and_serves_reads(started: Programs, disk: Path) -> None:
    url = serve(started, disk, "-cache-bytes=0")
    expect(put(url, "cached", '"old"'), 200)
    with counting(url) as account:
        # A journal is open for writing while there are writes, and then a file system is busy.
        account.paused.set()
        wait_for(lambda: remounted(disk, "ro"), "read-only")
        account.paused.clear()
        wait_for(lambda: account.statuses[507] > 10, "writes are refused")
        refused_but_readable(url, "store_full", 507)
        assert remounted(disk, "rw")
        wait_for(lambda: put(url, "cached", '"newer"').status_code == 200, "writable again", RECOVERY_S)
    assert set(account.statuses) == {200, 507}
    assert staged(disk) == []


def remounted(where: Path, mode: str) -> bool:
    # Refused as busy while a file is open for writing.
    done = subprocess.run(["mount", "-o", f"remount,{mode}", str(where)], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("way", ["unmounted", "moved"])
def test_a_directory_that_is_gone_is_not_an_empty_database(
    started: Programs, tmp_path: Path, way: str
) -> None:
    real, db = tmp_path / "real", tmp_path / "db"
    for folder in (real, db):
        folder.mkdir()
    mount("--bind", str(real), str(db))
    if way == "moved":
        unmount(db)
    try:
        url = serve(started, db, "-cache-bytes=0")
        for key in ("uncached", "a", "b"):
            expect(put(url, key, '"old"'), 200)
        # What is in the memory of a journal is answered from there.
        wait_until_written(db)
        with counting(url) as account:
            if way == "moved":
                db.rename(tmp_path / "away")
            else:
                unmount(db)
            wait_for(lambda: account.statuses[503] > 10, "it is noticed")
            for _ in range(3):
                for answer in (get(url, "uncached"), put(url, "a", '"lost"'), put(url, "never", '"lost"')):
                    expect(answer, 503)
                    assert answer.json()["error"] == "store_gone", answer.text
            assert not list(db.rglob("*.enc")), "something was written where the store was"
            if way == "moved":
                (tmp_path / "away").rename(db)
            else:
                mount("--bind", str(real), str(db))
            wait_for(lambda: get(url, "uncached").status_code == 200, "back", RECOVERY_S)
        assert {key: get(url, key).json() for key in ("uncached", "a", "b")} == dict.fromkeys(
            ("uncached", "a", "b"), "old"
        )
        assert get(url, "never").status_code == 404
        # A commit that was under way when the directory went cannot remove its own; the next
        # opening does, an hour later.
        assert len(staged(db)) <= WRITERS
    finally:
        unmount(db)


def test_a_cached_document_is_served_while_the_directory_is_gone(started: Programs, tmp_path: Path) -> None:
    url = serve(started, tmp_path / "db")
    expect(put(url, "cached", '"old"'), 200)
    (tmp_path / "db").rename(tmp_path / "away")
    deadline = time.monotonic() + 5.0  # Longer than two looks at the store.
    while time.monotonic() < deadline:
        assert get(url, "cached").json() == "old"
        expect(get(url, "uncached"), 503)
        time.sleep(0.1)
    (tmp_path / "away").rename(tmp_path / "db")
    wait_for(lambda: get(url, "uncached").status_code == 404, "back", RECOVERY_S)
    expect(put(url, "cached", '"new"'), 200)


# -- S3 ---------------------------------------------------------------------------------------


@pytest.fixture
def own_weed(tmp_path: Path) -> Iterator[S3Server]:
    """A server that a test may stop."""
    with running_weed(tmp_path / "weed") as server:
        yield server


def on_bucket(started: Programs, server: S3Server) -> Cluster:
    token = "the-join-token-of-the-tests"
    return Cluster(
        started,
        [*s3_arguments(server, "trouble"), f"-join-token={token}"],
        started.folder / "state",
        {"MASTER_KEY": MASTER_KEY, "JOIN_TOKEN": token},
    ).start("one", "two")


def test_a_slow_s3_server_costs_time_and_nothing_else(started: Programs, own_weed: S3Server) -> None:
    cluster = on_bucket(started, own_weed)
    with counting(cluster.url) as account:
        for _ in range(12):
            own_weed.pause()
            time.sleep(0.5)
            own_weed.resume()
            time.sleep(0.1)
        assert get(cluster.url, "w0", "load").status_code == 200
        expect(put(cluster.url, "other", '"new"'), 200)
    assert set(account.statuses) == {200}


@pytest.mark.parametrize("way", ["stopped", "paused"])
def test_an_s3_server_that_does_not_answer(started: Programs, own_weed: S3Server, way: str) -> None:
    cluster = on_bucket(started, own_weed)
    url = cluster.url
    expect(put(url, "cached", '"old"'), 200)
    with counting(url) as account:
        refused = account.statuses[503] + account.statuses[504]
        if way == "stopped":
            own_weed.stop()
        else:
            own_weed.pause()
        wait_for(lambda: account.statuses[503] + account.statuses[504] > refused + 2, "noticed", 60.0)
        assert get(url, "cached").json() == "old"
        expect(get(url, "uncached"), 503)
        expect(put(url, "fresh", '"maybe"'), 503, 504)
        assert get(url, "cached").json() == "old"
        assert probe(url, "/livez")[0] == 200
        if way == "stopped":
            own_weed.start()
        else:
            own_weed.resume()
        wait_for(lambda: get(url, "uncached").status_code == 404, "back", 60.0)
        expect(put(url, "cached", '"new"'), 200)
    assert set(account.statuses) <= {200, 503, 504}
    assert get(url, "cached").json() == "new"
    assert get(url, "fresh").status_code in (200, 404)
