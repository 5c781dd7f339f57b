"""A schema at work in a process of its own, before it is in force.

Compiling a schema, and checking a document by one, may each take about a second (``schema.bounds``),
and the validating library holds the interpreter meanwhile. A scan does so a million times over. In
a child process that costs processor time and no request; and a child can be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import IO, Any, Final, TypeVar

import msgspec

from deltadatabase.errors import Invalid, Issue, Overloaded, Unavailable
from deltadatabase.limits import SCHEMA_TRIAL_BYTES_MAX, SCHEMA_TRIALS_MAX, SCHEMA_TRIALS_WAITING_MAX

_LENGTH: Final = struct.Struct(">Q")
_NICENESS: Final = 10

T = TypeVar("T")


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the child says of the schema itself.

    Attributes:
        version: hash of its bytes; "" where it is refused.
        code, detail, issues: of the refusal.
    """

    version: str = ""
    code: str = ""
    detail: str = ""
    issues: tuple[Issue, ...] = ()


class SchemaTrial:
    """One child with one compiled schema. Made by ``trial_of``.

    Attributes:
        version: of the schema: hex SHA-256 of its bytes.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._asking = threading.Lock()
        self.version = ""

    async def check(self, documents: Sequence[tuple[str, bytes]]) -> list[tuple[Issue, ...]]:
        """Say for each key and document why the schema refuses it; empty where it doesn't."""
        return await self._ask(documents, list[tuple[Issue, ...]])

    async def begin(self, text: bytes) -> None:
        """Compile the schema; called once, first. Raises Invalid."""
        judgement = await self._ask(text, Judgement)
        if not judgement.version:
            raise Invalid(judgement.detail, code=judgement.code, issues=judgement.issues)
        self.version = judgement.version

    async def _ask(self, question: object, shape: type[T]) -> T:
        answer = await asyncio.to_thread(self._exchange, msgspec.msgpack.encode(question))
        if answer is None:
            raise Unavailable("the process that tries the schema ended", code="schema_trial_ended")
        return msgspec.msgpack.decode(answer, type=shape)

    def _exchange(self, question: bytes) -> bytes | None:
        """Send one frame and wait for the one that answers it; None when the child is gone."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._asking:
            try:
                _send(stdin, question)
                return _receive(stdout)
            except (OSError, ValueError):
                return None

    def end(self) -> None:
        """End the child and wait until it is gone: milliseconds, but not for the event loop."""
        # Killed first: that frees a thread that waits for its answer, and the lock with it.
        self._process.kill()
        # What a question that broke off has left in the buffer is lost when the pipe is closed.
        with contextlib.suppress(BrokenPipeError), self._asking, self._process:
            pass


@contextlib.asynccontextmanager
async def trial_of(text: bytes) -> AsyncGenerator[SchemaTrial]:
    """Compile a schema in a child process, which lives as long as the context.

    Raises:
        Invalid: ``invalid_schema``, as ``schema.validator.compile_schema``.
        Unavailable: ``schema_trial_ended``: the child ended, perhaps for want of memory.
    """
    process = _start()
    trial = SchemaTrial(process)
    try:
        await trial.begin(text)
        yield trial
    finally:
        await asyncio.shield(asyncio.to_thread(trial.end))


def _start() -> subprocess.Popen[bytes]:
    # Not asyncio's own way; the reason is told in ``gateway.trial``. It takes about a millisecond.
    return subprocess.Popen(
        [sys.executable, "-m", "deltadatabase.gateway.schema_trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # It finds what this process finds, and none of the secrets in this one's environment.
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


class SchemaTrials:
    """Tries schemas, a bounded number at a time."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(SCHEMA_TRIALS_MAX)
        self._waiting = 0

    async def version_of(self, text: bytes) -> str:
        """Check a schema and give its version.

        Raises:
            Invalid: ``invalid_schema``.
            Overloaded: too many wait for the same.
        """
        async with self.trial_of(text) as trial:
            return trial.version

    @contextlib.asynccontextmanager
    async def trial_of(self, text: bytes) -> AsyncIterator[SchemaTrial]:
        """As the function of this name, once there is a place for it."""
        if self._waiting >= SCHEMA_TRIALS_WAITING_MAX:
            raise Overloaded("too many schemas are being tried", code="schema_trials")
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            async with trial_of(text) as trial:
                yield trial
        finally:
            self._places.release()


def _send(stream: IO[bytes], frame: bytes) -> None:
    stream.write(_LENGTH.pack(len(frame)) + frame)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """Read one frame; None at the end."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    frame = stream.read(size)
    return frame if len(frame) == size else None


def _serve(stdin: IO[bytes], stdout: IO[bytes]) -> None:
    """Compile the schema of the first frame, then check the documents of each frame that follows."""
    # Only the child compiles.
    from deltadatabase.schema.validator import compile_schema

    answer: Any
    if (first := _receive(stdin)) is None:
        return
    try:
        schema = compile_schema(msgspec.msgpack.decode(first, type=bytes))
    except Invalid as exc:
        answer = Judgement(code=exc.code, detail=exc.detail, issues=exc.issues)
        _send(stdout, msgspec.msgpack.encode(answer))
        return
    _send(stdout, msgspec.msgpack.encode(Judgement(version=schema.hash)))
    while (frame := _receive(stdin)) is not None:
        answer = []
        for key, document in msgspec.msgpack.decode(frame, type=list[tuple[str, bytes]]):
            try:
                schema.check(key, document)
                answer.append(())
            except Invalid as exc:
                answer.append(exc.issues or (Issue("", "", exc.detail),))
        _send(stdout, msgspec.msgpack.encode(answer))


if __name__ == "__main__":
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (SCHEMA_TRIAL_BYTES_MAX, SCHEMA_TRIAL_BYTES_MAX))
    _serve(sys.stdin.buffer, sys.stdout.buffer)
