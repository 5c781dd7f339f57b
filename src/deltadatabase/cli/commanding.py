"""Runs a command against a server: its client, its output, and its errors as lines and exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from deltadatabase import errors
from deltadatabase.cli.commands import Command
from deltadatabase.cli.rest import client_of
from deltadatabase.client import Client
from deltadatabase.errors import DeltaError, StartupError
from deltadatabase.settings import CommandFlags

EXIT_DONE: Final = 0
EXIT_REFUSED: Final = 1
EXIT_UNREACHABLE: Final = 2
EXIT_CONFLICT: Final = 3
EXIT_UNKNOWN: Final = 4
EXIT_INTERRUPTED: Final = 130
EXIT_PIPE: Final = 141
ISSUES_SHOWN: Final = 20
STDIN: Final = "-"

_EXITS: Final = (
    (errors.OutcomeUnknown, EXIT_UNKNOWN),
    (errors.PartlyApplied, EXIT_UNKNOWN),
    ((errors.VersionMismatch, errors.AlreadyExists, errors.Conflict), EXIT_CONFLICT),
    ((errors.Unavailable, errors.Overloaded, errors.Internal, StartupError), EXIT_UNREACHABLE),
)
_WRONG_USE: Final = frozenset({"redirected", "bad_etag", "bad_name", "bad_idempotency_key"})


def run(command: Command, settings: CommandFlags) -> int:
    """Run a command; return its exit code."""
    module = importlib.import_module(f"deltadatabase.cli.{command.module}")
    function: Callable[[Any], int] = getattr(module, command.function)
    try:
        code = function(settings)
        sys.stdout.flush()
    except DeltaError as exc:
        tell(command.name, exc)
        return exit_code(exc)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Nothing may be written at the exit, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def exit_code(error: DeltaError) -> int:
    """The exit code that tells of an error."""
    if error.code in _WRONG_USE:
        return EXIT_UNREACHABLE
    return next((code for kinds, code in _EXITS if isinstance(error, kinds)), EXIT_REFUSED)


def tell(name: str, error: DeltaError) -> None:
    """Print an error for people."""
    say(f"deltadb {name}: {' '.join(error.detail.split())} ({error.code})")
    if isinstance(error, errors.Unauthenticated):
        say("  a key is given by DELTADB_KEY, -key-file or -key")
    for issue in error.issues[:ISSUES_SHOWN]:
        say(f"  {issue.pointer or '/'}: {issue.detail}")
    for note in getattr(error, "__notes__", ()):
        say(f"  {note.replace('skip_lines=', '-skip-lines=')}")


def say(line: str) -> None:
    """Print a line on stderr; control characters of names and details do no harm to a terminal."""
    print("".join(char if char.isprintable() else "\ufffd" for char in line), file=sys.stderr)


@contextlib.contextmanager
def connected(settings: CommandFlags) -> Iterator[Client]:
    """Give the client of a command, and close it."""
    with client_of(settings, give_up_after_s=settings.retry) as client:
        yield client


def write(data: bytes) -> None:
    """Write to stdout as it is."""
    sys.stdout.buffer.write(data)


def write_json(value: object) -> None:
    """Write a line of JSON to stdout."""
    write(msgspec.json.encode(value) + b"\n")
    sys.stdout.flush()


def write_fields(answer: msgspec.Struct) -> None:
    """Write an answer of the client as a line of JSON."""
    fields = msgspec.structs.asdict(answer)
    write_json({name: moment(it) if isinstance(it, datetime) else it for name, it in fields.items()})


def moment(at: datetime | None) -> str | None:
    """A time as the server writes it, with milliseconds."""
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def compact(document: bytes) -> msgspec.Raw:
    """A document on one line; its numbers stay as they are spelled."""
    return msgspec.Raw(msgspec.json.format(document, indent=-1))


def read_input(text: str, file: str) -> bytes:
    """The bytes of a flag, of a file, or (``-`` or nothing) of stdin.

    Raises:
        StartupError: ``bad_flag``.
    """
    if text and file:
        raise StartupError("-document and FILE are both given: choose one", code="bad_flag")
    if text:
        return text.encode("utf-8", "surrogateescape")
    if file in {"", STDIN}:
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as exc:
        raise StartupError(f"FILE cannot be read: {exc.strerror}", code="bad_flag") from None
