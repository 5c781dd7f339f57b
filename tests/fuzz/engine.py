"""Runs one target on changed inputs, keeps what reaches new code, and reports what goes wrong.

The way to a finding is deterministic: the same target, seed and number of executions. A part of
the executions is traced line by line; an input that takes a new step between two lines joins the
corpus. (atheris, which traces all of them, has wheels for one platform only, and ends the process
with its run.)
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import mmap
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any, Final

EXECUTION_S_MAX: Final = 5.0
"""One execution may take so long, on a machine that does other things as well."""
EXECUTION_BYTES_MAX: Final = 256 << 20
"""One execution may raise the highest resident size of the process by so much."""
GROWTH_BYTES_MAX: Final = 96 << 20
"""All executions of a target together may leave so much more resident than its seeds did."""
GROWTH_CHECK: Final = 1000
TRACED_ONE_IN: Final = 8
CORPUS_MAX: Final = 1500
INPUT_BYTES_MAX: Final = 64 << 10
STUCK_S: Final = 60
WARM_EXECUTIONS: Final = 500


class Wrong(AssertionError):
    """A target's verdict on itself: it accepted what it must not, or gave back something else."""


class TooSlow(BaseException):
    """Raised into an execution that is past its time."""


@dataclass
class Target:
    """One parser.

    Attributes:
        name: as ``-target`` takes it.
        check: runs it on one input; returns if the outcome is among those that it promises.
        seeds: inputs to begin with, most of them good ones.
        change: makes an input of one of the corpus and of another one.
        close: gives back what it holds.
    """

    name: str
    check: Callable[[bytes], object]
    seeds: Sequence[bytes]
    change: Callable[[Random, bytes, bytes], bytes]
    close: Callable[[], object] = lambda: None


class Finding(Exception):
    """An input after which something other than an answer came out."""

    def __init__(self, target: str, reason: str, data: bytes) -> None:
        super().__init__(f"{target}: {reason}")
        self.target, self.reason, self.data = target, reason, data

    def save(self, folder: Path) -> Path:
        """Write the input to a file that ``-reproduce`` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}.input"
        path.write_bytes(self.data)
        return path


class Blackbox:
    """Holds the input under way in a file, for when the whole process dies of it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w+b")
        self._file.truncate(8 + 4 * INPUT_BYTES_MAX)
        self._map = mmap.mmap(self._file.fileno(), 0)

    def note(self, data: bytes) -> None:
        size = min(len(data), 4 * INPUT_BYTES_MAX)
        self._map[8 : 8 + size] = data[:size]
        self._map[:8] = size.to_bytes(8, "big")

    def close(self) -> None:
        self._map.close()
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)  # Another run may have had the same name.


@dataclass
class Coverage:
    """Steps between two lines of the program that some input has taken."""

    seen: set[tuple[CodeType, int, int]] = field(default_factory=set)

    def traced(self, run: Callable[[], object]) -> bool:
        """Run under the tracer; whether there was a new step."""
        before = len(self.seen)
        former = sys.gettrace()
        sys.settrace(self._called)
        try:
            run()
        finally:
            sys.settrace(former)
        return len(self.seen) > before

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        if "deltadatabase" not in code.co_filename:
            return None
        seen, last = self.seen, 0

        def line(frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any]:
            nonlocal last
            seen.add((code, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line


class Fuzzer:
    """Runs one target; ``run`` may be called again and goes on where it was."""

    def __init__(self, target: Target, seed: int, blackbox: Blackbox | None = None) -> None:
        self.target = target
        self.executions = 0
        self.seconds = 0.0
        self.corpus = [*target.seeds]
        self.coverage = Coverage()
        self._random = Random(f"{seed}/{target.name}")
        self._blackbox = blackbox
        self._peak = 0
        self._resident_at_start = 0
        self._armed_s = 0.0

    def run(self, executions: int, until_s: float = float("inf")) -> int:
        """Execute so many times, or until a monotonic time. Raises Finding."""
        begun, done = time.monotonic(), 0
        with _alarms():
            self._forget_peak()
            if self.executions == 0:
                for data in self.target.seeds:
                    self._execute(data, traced=True)
                    done += 1
            while done < executions and time.monotonic() < until_s:
                draw = self._random
                data = self.target.change(draw, draw.choice(self.corpus), draw.choice(self.corpus))
                data = data[: 4 * INPUT_BYTES_MAX]
                traced = self.executions % TRACED_ONE_IN == 0
                if self._execute(data, traced=traced) and len(data) <= INPUT_BYTES_MAX:
                    self._remember(data)
                done += 1
        self.seconds += time.monotonic() - begun
        return done

    def _remember(self, data: bytes) -> None:
        if len(self.corpus) < CORPUS_MAX:
            self.corpus.append(data)
        else:
            self.corpus[self._random.randrange(len(self.target.seeds), CORPUS_MAX)] = data

    def _execute(self, data: bytes, *, traced: bool) -> bool:
        if self._blackbox is not None:
            self._blackbox.note(data)
        self._arm()
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, EXECUTION_S_MAX)
        new = False
        try:
            if traced:
                new = self.coverage.traced(lambda: self.target.check(data))
            else:
                self.target.check(data)
        except TooSlow:
            raise Finding(self.target.name, f"runs for more than {EXECUTION_S_MAX} s", data) from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # a panic of a Rust library is no Exception
            raise Finding(self.target.name, _told(exc), data) from exc
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.executions += 1
        seconds = time.monotonic() - started
        if seconds > EXECUTION_S_MAX:
            raise Finding(self.target.name, f"runs for {seconds:.1f} s", data)
        self._check_memory(data)
        return new

    def _check_memory(self, data: bytes) -> None:
        peak = _peak_bytes()
        if self._peak and peak - self._peak > EXECUTION_BYTES_MAX:
            raise Finding(self.target.name, f"takes {(peak - self._peak) >> 20} MiB", data)
        self._peak = max(self._peak, peak)
        if self.executions == WARM_EXECUTIONS:
            self._resident_at_start = resident_bytes()
        elif self._resident_at_start and self.executions % GROWTH_CHECK == 0:
            grown = resident_bytes() - self._resident_at_start
            if grown > GROWTH_BYTES_MAX:
                raise Finding(self.target.name, f"keeps {grown >> 20} MiB after so many inputs", data)

    def _forget_peak(self) -> None:
        # The highest resident size counts from here (proc(5), clear_refs).
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._peak = 0

    def _arm(self) -> None:
        """See to it that a call into a library that never returns ends the process, and says where."""
        now_s = time.monotonic()
        if self._blackbox is not None and now_s - self._armed_s > 1.0:
            self._armed_s = now_s
            faulthandler.dump_traceback_later(STUCK_S, exit=True)


@contextlib.contextmanager
def _alarms() -> Iterator[None]:
    def ring(_number: int, _frame: object) -> None:
        raise TooSlow

    former = signal.signal(signal.SIGALRM, ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        faulthandler.cancel_dump_traceback_later()


def shared_memory() -> Path | None:
    """A folder in memory, where a machine has one; None: wherever temporary files go."""
    place = Path("/dev/shm")
    return place if place.is_dir() else None


def resident_bytes(pid: int | str = "self") -> int:
    """Resident size of a process, proc(5)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _told(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)
    ours = [frame for frame in frames if "deltadatabase" in frame.filename] or frames
    where = f" in {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"{type(exc).__name__}{where}: {exc}"[:400]
