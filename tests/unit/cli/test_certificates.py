from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog.testing
from support.certificates import Authority, Pair

from deltadatabase.cli.certificates import Certificates, watched
from deltadatabase.clock import SystemClock
from deltadatabase.crypto.certificates import Pem
from deltadatabase.errors import StartupError
from deltadatabase.settings import TlsFlags

AUTHORITY = Authority()


class AheadClock(SystemClock):
    """The machine's clock, put ahead by some hours."""

    hours = 0.0

    def wall_ms(self) -> int:
        return super().wall_ms() + int(self.hours * 3_600_000)

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.hours * 3600


class Setting:
    """Certificates over files in a folder, and what was said and told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = AheadClock()
        self.told: list[Pem] = []
        self.tried: list[Pem] = []
        self.usable = True
        self.flags = TlsFlags(cert=folder / "cert.pem", key=folder / "key.pem", ca=folder / "ca.pem")
        self.certificates = Certificates(self.flags, clock=self.clock, try_out=self._try_out)
        self.certificates.on_change(self._tell)

    async def _try_out(self, pem: Pem) -> bool:
        self.tried.append(pem)
        return self.usable

    async def _tell(self, pem: Pem) -> None:
        self.told.append(pem)

    def write(self, pair: Pair) -> Pair:
        pair.write(self.folder, AUTHORITY.cert)
        return pair

    async def look(self, times: int = 1) -> str:
        for _ in range(times):
            await self.certificates.look()
        return self.certificates.current().serial


@pytest.fixture
async def setting(tmp_path: Path) -> Setting:
    made = Setting(tmp_path)
    made.write(AUTHORITY.issue(serial=0x10))
    await made.certificates.load()
    return made


@pytest.fixture
def said() -> Iterator[Callable[[], list[str]]]:
    """The messages logged since the last call."""
    with structlog.testing.capture_logs() as entries:

        def since_last() -> list[str]:
            lines = [str(entry) for entry in entries]
            entries.clear()
            return lines

        yield since_last


async def test_unchanged_files_change_nothing(setting, said):
    assert await setting.look(5) == "10"
    assert setting.told == [] and len(setting.tried) == 1 and said() == []


async def test_a_changed_set_is_taken_when_two_looks_saw_the_same(setting, said):
    setting.write(AUTHORITY.issue(serial=0x20))
    assert await setting.look() == "10"
    assert await setting.look() == "20"
    assert [pem.serial for pem in setting.told] == ["20"]
    assert [("'serial': '20'" in line) for line in said()] == [True]
    assert await setting.look(3) == "20" and len(setting.told) == 1


async def test_a_set_that_goes_on_changing_is_waited_for(setting):
    for serial in range(0x20, 0x26):
        setting.write(AUTHORITY.issue(serial=serial))
        assert await setting.look() == "10"
    assert await setting.look() == "25"


@pytest.mark.parametrize("first", ["cert.pem", "key.pem"])
async def test_certificate_and_key_written_one_after_the_other(setting, said, first):
    new = AUTHORITY.issue(serial=0x20)
    contents = {"cert.pem": new.cert, "key.pem": new.key}
    (setting.folder / first).write_bytes(contents.pop(first))
    assert await setting.look(4) == "10"
    lines = said()
    assert len(lines) == 1 and "kept out" in lines[0] and "does not belong" in lines[0]
    (second,) = contents
    (setting.folder / second).write_bytes(contents[second])
    assert await setting.look(2) == "20"
    assert len(said()) == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cert.pem", b"", "-tls-cert: the file holds no certificate"),
        ("key.pem", b"\0", "-tls-key: the file holds no private key"),
        ("ca.pem", b"hello", "-tls-ca: the file holds no certificate"),
        ("key.pem", None, "-tls-key: the file cannot be read: no such file"),
        ("ca.pem", bytes(5_000_000), "-tls-ca: the file is too large"),
    ],
)
async def test_unusable_files_are_kept_out_and_said_once(setting, said, name, content, words):
    path = setting.folder / name
    before = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert await setting.look(5) == "10"
    lines = said()
    assert len(lines) == 1 and words in lines[0] and str(setting.folder) not in lines[0]
    path.write_bytes(before)
    assert await setting.look(3) == "10" and said() == []
    path.write_bytes(b"again")
    await setting.look(3)
    assert len(said()) == 1


async def test_what_the_server_cannot_use_is_tried_seldom_and_said_once(setting, said):
    setting.usable = False
    setting.write(AUTHORITY.issue(serial=0x20))
    assert await setting.look(6) == "10"
    assert [pem.serial for pem in setting.tried] == ["10", "20"]
    lines = said()
    assert len(lines) == 1 and "the HTTP server cannot use" in lines[0]
    setting.clock.hours = 0.05
    assert await setting.look(6) == "10"
    assert len(setting.tried) == 3 and said() == []
    setting.usable = True
    assert await setting.look(6) == "10"
    setting.clock.hours = 0.1
    assert await setting.look() == "20"
    setting.write(AUTHORITY.issue(serial=0x30))
    assert await setting.look(2) == "30"


async def test_a_set_that_is_not_valid_yet_is_taken_when_it_is(setting, said):
    hour = dt.timedelta(hours=1)
    setting.write(AUTHORITY.issue(serial=0x20, begins=hour, ends=9 * hour))
    assert await setting.look(4) == "10"
    assert len(said()) == 1
    setting.clock.hours = 2
    assert await setting.look() == "20"


async def test_the_end_of_the_one_in_use_is_said_once(setting, said):
    setting.clock.hours = 2
    await setting.look(4)
    lines = [line for line in said() if "has expired" in line]
    assert len(lines) == 1


async def test_a_listener_that_cannot_take_it_now_is_asked_again(setting, said):
    refusals = [OSError(24, "too many open files")] * 2
    taken = []

    async def take(pem: Pem) -> None:
        if refusals:
            raise refusals.pop()
        taken.append(pem.serial)

    setting.certificates.on_change(take)
    setting.write(AUTHORITY.issue(serial=0x20))
    await setting.look(5)
    assert taken == ["20"] and [pem.serial for pem in setting.told] == ["20"]


async def test_a_key_that_others_may_read_is_warned_of(setting, said):
    for mode, warned in ((0o600, 0), (0o640, 0), (0o644, 1), (0o620, 1), (0o666, 1)):
        (setting.folder / "key.pem").chmod(mode)
        await setting.certificates.load()
        lines = said()
        assert len(lines) == warned and str(setting.folder) not in "".join(lines)


@pytest.mark.parametrize("name", ["cert", "key", "ca"])
async def test_a_missing_file_at_the_start(setting, name):
    (setting.folder / f"{name}.pem").unlink()
    with pytest.raises(StartupError) as caught:
        await setting.certificates.load()
    assert caught.value.detail == f"-tls-{name}: the file cannot be read: no such file or directory"
    (setting.folder / f"{name}.pem").mkdir()
    with pytest.raises(StartupError) as caught:
        await setting.certificates.load()
    assert caught.value.detail == f"-tls-{name}: the file cannot be read: is a directory"


async def test_a_set_that_the_server_cannot_use_at_the_start(setting):
    setting.usable = False
    with pytest.raises(StartupError) as caught:
        await setting.certificates.load()
    assert caught.value.code == "bad_flag" and "cannot use" in caught.value.detail


async def test_the_key_is_looked_at_again_when_it_changed(setting, said):
    setting.write(AUTHORITY.issue(serial=0x20))
    (setting.folder / "key.pem").chmod(0o644)
    assert await setting.look(4) == "20"
    assert len([line for line in said() if "give it mode 0600" in line]) == 1


async def test_two_looks_with_a_gap_between_them_are_not_in_a_row(setting):
    new = AUTHORITY.issue(serial=0x20)
    setting.write(new)
    assert await setting.look() == "10"
    (setting.folder / "key.pem").unlink()
    assert await setting.look() == "10"
    setting.write(new)
    assert await setting.look() == "10"
    assert await setting.look() == "20"


async def test_a_failure_that_nobody_foresaw_does_not_end_the_watch(setting, said):
    failures = [ValueError("what nobody foresaw")]

    async def take(pem: Pem) -> None:
        if failures:
            raise failures.pop()

    setting.certificates.on_change(take)
    setting.write(AUTHORITY.issue(serial=0x20))
    watching = asyncio.create_task(setting.certificates.watch(0.01))
    while setting.certificates.current().serial != "20":
        await asyncio.sleep(0.01)
    setting.write(AUTHORITY.issue(serial=0x30))
    while setting.certificates.current().serial != "30":
        await asyncio.sleep(0.01)
    watching.cancel()
    assert len([line for line in said() if "it is tried again" in line]) == 1


async def test_watching_looks_by_itself(setting):
    async with watched(setting.flags, clock=setting.clock, poll_s=0.01) as own:
        assert own is not None
        setting.write(AUTHORITY.issue(serial=0x20))
        began = time.monotonic()
        while own.current().serial != "20":
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.01)
    async with watched(TlsFlags(), clock=setting.clock) as none:
        assert none is None
