"""Command lines, environments, and the values in them."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

from deltadatabase.errors import StartupError
from deltadatabase.settings import loading
from deltadatabase.settings.flags import Asked, describe, flags_of
from deltadatabase.settings.programs import MainSettings, ScrubSettings, ServeSettings, WorkerSettings
from deltadatabase.settings.values import (
    format_duration,
    format_size,
    parse_address,
    parse_bool,
    parse_duration,
    parse_size,
)
from fuzz.engine import Target, Wrong
from fuzz.mutate import bytes_changed

VALUES = tuple(
    text.encode()
    for text in (
        "127.0.0.1:8080", ":0", "[::1]:50051", "[::]:1", "host-1.example:65535", "0", "500ms", "1h30m", "24h",
        "7d", "1.5s", ".5m", "10µs", "36500d", "256MiB", "1GiB", "10MB", "4096", "4 ki", "true", "F", "1", "",
    )
)  # fmt: skip


def check_value(data: bytes) -> None:
    """Each parser of a value: ``ValueError``, or a value that survives its own notation."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        address = parse_address(text)
        if parse_address(str(address)) != address:
            raise Wrong("an address does not survive its own notation")
    except ValueError:
        pass
    try:
        seconds = parse_duration(text)
        again = parse_duration(format_duration(seconds))
        if not math.isclose(again, seconds, abs_tol=1e-6):
            raise Wrong("a duration does not survive its own notation")
    except ValueError:
        pass
    try:
        size = parse_size(text)
        if parse_size(format_size(size)) != size:
            raise Wrong("a size does not survive its own notation")
    except ValueError:
        pass
    try:
        parse_bool(text)
    except ValueError:
        pass


def values(_folder: Path) -> Target:
    return Target("values", check_value, VALUES, bytes_changed)


LOADERS = (
    loading.load_main,
    loading.load_serve,
    loading.load_worker,
    loading.load_scrub,
    loading.load_doctor,
    loading.load_admin_key,
)
NAMES = tuple(
    sorted({flag.name for cls in (MainSettings, ServeSettings, WorkerSettings, ScrubSettings)
            for _, flag in flags_of(cls)})
)  # fmt: skip
LINES = tuple(
    "\0".join(words).encode()
    for words in (
        ("-rest-addr=:8080", "-grpc-addr=:50051", "-admin-key=sixteen-characters"),
        ("--s3-endpoint", "http://127.0.0.1:9000", "-s3-bucket=delta-db", "-s3-path-style=true"),
        ("-s3-bucket=s3://name", "-worker-id=proc-1", "-main-addr=127.0.0.1:1", "-advertise-addr=[::1]:2"),
        ("-memory", "-dev", "-workers", "2", "-cache-bytes=256MiB", "-drain-timeout=30s"),
        ("-master-key=" + "5d" * 32, "-master-key-previous=" + "5e" * 32, "-join-token=" + "j" * 16),
        ("-h",), ("-version",), ("-quarantine", "-resume", "-dry-run"), ("!", "S3_ENDPOINT=http://h:1"),
        ("-log-format", "json", "!", "MASTER_KEY=00", "ADMIN_KEY=", "REST_ADDR=:1"),
    )
)  # fmt: skip


def line_changed(random: Random, data: bytes, other: bytes) -> bytes:
    words, others = data.split(b"\0"), other.split(b"\0")
    at = random.randrange(len(words))
    match random.randrange(5):
        case 0:
            words[at] = bytes_changed(random, words[at], random.choice(others))
        case 1:
            words.insert(at, random.choice(others))
        case 2:
            del words[at]
        case 3:
            name = random.choice(NAMES).encode()
            value = random.choice(VALUES) or b"x"
            words.insert(at, random.choice((b"-%b=%b", b"--%b=%b", b"-%b\0%b")) % (name, value))
        case _:
            words.insert(
                at, random.choice(NAMES).upper().replace("-", "_").encode() + b"=" + random.choice(VALUES)
            )
    return b"\0".join(words)


def check_line(data: bytes) -> None:
    """Each program's reading of a line; what follows a ``!`` is its environment."""
    words = data.decode("utf-8", "surrogateescape").split("\0")
    arguments, environ = words, {}
    if "!" in words:
        at = words.index("!")
        arguments = words[:at]
        environ = dict(word.partition("=")[::2] for word in words[at + 1 :])
    for load in LOADERS:
        try:
            settings = load(arguments, environ)
        except (StartupError, Asked):
            continue
        if not all(isinstance(text, str) for text in describe(settings).values()):
            raise Wrong("settings that cannot be shown")


def flags(_folder: Path) -> Target:
    return Target("flags", check_line, LINES, line_changed)
