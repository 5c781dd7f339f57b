"""NDJSON out of the database; a broken stream is taken up again behind its last whole line."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from deltadatabase.client.lines import Lines
from deltadatabase.client.problems import error_of, not_ours
from deltadatabase.client.requests import Failure, Request, Response, segment, with_query
from deltadatabase.client.steps import Emit, Means, Open, Read, Steps, Trying


class _Line(msgspec.Struct, frozen=True):
    key: str


def export_lines(schema: str, means: Means, *, prefix: str, after: str | None) -> Steps[None]:
    """Emit lists of whole lines, without their ends, in the order of the stored names.

    Raises:
        DeltaError: nothing came for as long as calls are tried.
    """
    path = f"/export/{segment(schema, 'schema id')}"
    last: bytes | None = None
    trying: Trying | None = None
    while True:
        request = Request("GET", with_query(path, prefix=prefix or None, after=after))
        trying = trying or Trying(request, means)
        opened: Response | Failure = yield Open(request)
        error = error_of(request, opened)
        if error is None:
            reader = Lines()
            block: bytes | Failure | None = b""
            while isinstance(block, bytes):
                block = yield Read()
                if not isinstance(block, bytes):
                    break
                if lines := reader.feed(block):
                    last = lines[-1]
                    trying.restart()
                    yield Emit(lines)
            if block is None and not reader.rest:
                return
            error = error_of(request, block if block is not None else Failure(sent=True))
            assert error is not None
        yield trying.failed(error)
        if last is not None:
            after = _key_of(last)


def _key_of(line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=_Line).key
    except msgspec.MsgspecError:
        raise not_ours() from None


class WholeFile:
    """A file that appears complete or not at all. A context manager that gives the file to write.

    Args:
        path: its place. What is there stays until the new one is complete and durable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._temporary = ""

    def __enter__(self) -> Self:
        descriptor, self._temporary = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        self._file = os.fdopen(descriptor, "wb")
        return self

    def write(self, lines: list[bytes]) -> int:
        """Append lines; give how many bytes they are."""
        assert self._file is not None
        block = b"\n".join(lines) + b"\n"
        self._file.write(block)
        return len(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        with contextlib.ExitStack() as always:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
            always.callback(self._file.close)
        if kind is None:
            Path(self._temporary).replace(self._path)
        else:
            Path(self._temporary).unlink(missing_ok=True)
