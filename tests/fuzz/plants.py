"""Bugs to be found: a fuzzer that passes over one of these is not to be believed."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import msgspec
from support.programs import Programs

from deltadatabase.auth import join as joining
from deltadatabase.cli.__main__ import PROGRAMS
from deltadatabase.crypto import envelope
from deltadatabase.gateway import batch, control, edge, entity, forwarding, ndjson, request
from deltadatabase.rpc import convert
from deltadatabase.schema import document, patch
from deltadatabase.settings import values
from deltadatabase.storage import paths
from fuzz.targets import options


def _key_error(true: Callable[..., Any]) -> Callable[..., Any]:
    """A parser that forgets one kind of input: a repeated tag in a list of ETags."""

    def etags(value: bytes | None) -> object:
        found = true(value)
        if found is not None and len(found) > 2:
            raise KeyError("repeated")
        return found

    return etags


def _too_slow(true: Callable[..., Any]) -> Callable[..., Any]:
    """A parser that takes for ever on deep nesting."""

    def check_depth(text: bytes, depth_max: int) -> None:
        if text.count(b"[[[[[[[[") > 3:
            while True:
                time.sleep(0.01)
        true(text, depth_max)

    return check_depth


def _leak(true: Callable[..., Any]) -> Callable[..., Any]:
    """A parser that keeps something of each refused input."""
    kept: list[bytearray] = []

    def parse_address(text: str) -> object:
        try:
            return true(text)
        except ValueError:
            kept.append(bytearray(100_000))
            raise

    return parse_address


def _hungry(true: Callable[..., Any]) -> Callable[..., Any]:
    """A parser that believes a length that it reads."""

    def unescape_key(escaped: str) -> object:
        if "==" in escaped:
            bytearray(b"x") * (600 << 20)
        return true(escaped)

    return unescape_key


def _wrong_field(true: Callable[..., Any]) -> Callable[..., Any]:
    """A decoder that takes one field for another."""

    def decode_request(message: Any) -> object:
        command = true(message)
        if command.validated and command.revision > 1000:
            return msgspec.structs.replace(command, revision=command.revision & 0xFF)
        return command

    return decode_request


class _Believes:
    """A check of a MAC that finds every MAC right."""

    new = staticmethod(hmac.new)

    @staticmethod
    def compare_digest(_one: bytes, _other: bytes) -> bool:
        return True


def _forgetful(true: Callable[..., Any]) -> Callable[..., Any]:
    """A splitter that begins anew when a piece is large."""

    def add(self: ndjson.LineSplitter, piece: bytes) -> None:
        if len(piece) > 600:
            self._begun.clear()
        true(self, piece)

    return add


PLANTS: Final[dict[str, tuple[str, Callable[[], contextlib.AbstractContextManager[Any]]]]] = {
    "key-error": ("request-head", lambda: mock.patch.object(request, "etags", _key_error(request.etags))),
    "too-slow": (
        "documents",
        lambda: mock.patch.object(document, "_check_depth", _too_slow(document._check_depth)),
    ),
    # An index that is none.
    "patch-index": ("patch", lambda: mock.patch.object(patch, "_index", int)),
    "forgetful": (
        "import-lines",
        lambda: mock.patch.object(ndjson.LineSplitter, "_add", _forgetful(ndjson.LineSplitter._add)),
    ),
    "lenient-path": ("batch", lambda: mock.patch.object(batch, "_TARGET", re.compile(r"/(?s:.*)"))),
    "leak": ("values", lambda: _everywhere("parse_address", _leak(values.parse_address))),
    "hungry": ("paths", lambda: mock.patch.object(paths, "unescape_key", _hungry(paths.unescape_key))),
    "wrong-field": (
        "stream-request",
        lambda: mock.patch.object(convert, "decode_request", _wrong_field(convert.decode_request)),
    ),
    "no-mac": ("envelope-unsigned", lambda: mock.patch.object(envelope, "hmac", _Believes)),
    "no-proof": ("join", lambda: mock.patch.object(joining, "verify_worker", _raise_proof)),
}
"""Each with the target that has to find it."""


def _raise_proof(token: object, context: object, proof: bytes) -> bool:
    if len(proof) != 32:
        raise IndexError("a proof of another length")
    return True


def _everywhere(name: str, replacement: Callable[..., Any]) -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(options, name, replacement)


@contextlib.contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Have this bug while in here; None: none."""
    if name is None:
        yield
        return
    with PLANTS[name][1]():
        yield


# In the programs


def _served_500(true: Callable[..., Any]) -> Callable[..., Any]:
    def etags(value: bytes | None) -> object:
        if value is not None and b"W/" in value:
            raise KeyError("weak")
        return true(value)

    return etags


def _served_exit(true: Callable[..., Any]) -> Callable[..., Any]:
    def query_values(query: bytes, name: str) -> object:
        if b"%2e%2e" in query:
            os._exit(3)
        return true(query, name)

    return query_values


def _served_leak(true: Callable[..., Any]) -> Callable[..., Any]:
    kept: list[bytearray] = []

    def problem(*arguments: Any, **more: Any) -> object:
        kept.append(bytearray(os.urandom(100_000)))
        return true(*arguments, **more)

    return problem


def _served_stuck(true: Callable[..., Any]) -> Callable[..., Any]:
    async def put(self: Any, schema_id: str, documents: Any, **more: Any) -> object:
        if any(key.startswith("_") for key in documents):
            await asyncio.sleep(3600)
        return await true(self, schema_id, documents, **more)

    return put


def _served_join(_true: Callable[..., Any]) -> Callable[..., Any]:
    def check_join(asked: Any) -> None:
        int(asked.grpc_addr.rpartition(":")[2])

    return check_join


def _served_command(true: Callable[..., Any]) -> Callable[..., Any]:
    def decode_request(message: Any) -> object:
        command = true(message)
        return msgspec.structs.replace(command, schema_id=_BY_OP[int(command.op)])

    return decode_request


def _served_no_schemas(_true: Callable[..., Any]) -> Callable[..., Any]:
    async def schema_list(self: Any) -> tuple[str, ...]:
        raise KeyError(self)

    return schema_list


_BY_OP: Final = {1: "notes", 2: "notes"}

SERVED: Final[dict[str, tuple[object, str, Callable[[Any], Any]]]] = {
    "500": (entity, "etags", _served_500),
    "exit": (entity, "query_values", _served_exit),
    "leak": (edge, "problem", _served_leak),
    "stuck": (forwarding.Router, "put", _served_stuck),
    "no-route": (forwarding.Router, "schema_list", _served_no_schemas),
    "join": (control, "_check_join", _served_join),
    "command": (convert, "decode_request", _served_command),
}
"""What is changed in a program that is started with this plant."""


@dataclass
class PlantedPrograms(Programs):
    """Starts programs with a bug in them; with ``plant`` "" as they are."""

    plant: str = ""

    def _command(self, program: str) -> Sequence[str]:
        if not self.plant:
            return super()._command(program)
        return (sys.executable, "-m", "fuzz.plants", self.plant, program)

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        tests = str(Path(__file__).parent.parent)
        return {**super()._environment(more), **({"PYTHONPATH": tests} if self.plant else {})}


@contextlib.contextmanager
def planted_programs(folder: Path, plant: str = "") -> Iterator[PlantedPrograms]:
    """Start programs in a folder; on the way out stop them all."""
    started = PlantedPrograms(folder, plant=plant)
    try:
        yield started
    finally:
        started.stop_all()


if __name__ == "__main__":
    place, attribute, make = SERVED[sys.argv[1]]
    setattr(place, attribute, make(getattr(place, attribute)))
    program = PROGRAMS[sys.argv[2]]
    del sys.argv[1:3]
    sys.exit(program())
