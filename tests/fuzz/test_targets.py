"""A short run of every target; each harness finds what is planted in it; what once was found stays away."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
import structlog
from support.tampering import TIME, changed, seal, signed_anew

from fuzz.engine import Finding, Fuzzer, shared_memory
from fuzz.mutate import framed
from fuzz.plants import PLANTS, planted
from fuzz.targets import TARGETS
from fuzz.targets.stack import database

EXECUTIONS = 2400
SECONDS_MAX = 0.5
SEED = 20
#: Where the machine is slow, this many at least: fewer would show nothing.
EXECUTIONS_MIN = 50
PLANTED_EXECUTIONS = 100_000


@pytest.fixture(autouse=True)
def _quiet():
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)


@pytest.fixture
def folder():
    """In shared memory, where that is: several targets wait for the disk with each input."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as name:
        yield Path(name)


@pytest.fixture(params=[*TARGETS])
def target(request, folder):
    made = TARGETS[request.param](folder)
    yield made
    made.close()


def test_nothing_but_answers_comes_out(target):
    fuzzer = Fuzzer(target, SEED)
    fuzzer.run(EXECUTIONS_MIN)
    fuzzer.run(EXECUTIONS - EXECUTIONS_MIN, time.monotonic() + SECONDS_MAX)
    assert len(fuzzer.coverage.seen) > 5, "the inputs do not get into the program"


@pytest.mark.parametrize("plant", [*PLANTS])
def test_a_planted_bug_is_found(plant, folder, monkeypatch):
    monkeypatch.setattr("fuzz.engine.EXECUTION_S_MAX", 0.5)
    name = PLANTS[plant][0]
    with planted(plant), contextlib.closing(TARGETS[name](folder)) as made:
        fuzzer = Fuzzer(made, SEED)
        with pytest.raises(Finding) as caught:
            fuzzer.run(PLANTED_EXECUTIONS)
        # The input alone shows it, or the many before it do.
        assert caught.value.save(folder / "found").read_bytes() == caught.value.data
    assert caught.value.target == name


# What once came out as something else.

DEEP = b"[" * 5000
FAR = b"i9223372036854775807"
FAR_KEY = framed((b"tid", b"tci", b"b" + b"\1" * 32, b"tread", b"n", FAR, FAR))
FAR_SEALED = signed_anew(changed(seal(), TIME, to=b"\xff" * 8))
FOUND = {
    "unknown members of a description are skipped by recursion": ("database.json", b'{"other":' + DEEP),
    "of a scrub's position as well": ("scrub.json", b'{"other":' + DEEP),
    "and of a meta file": ("envelope", b'{"other":' + DEEP),
    "an epoch in the store that no message can carry": (
        "database.json",
        msgspec.json.encode(msgspec.structs.replace(database(), highest_epoch=2**64)),
    ),
    "an epoch in the state directory that none can carry": ("epochs.json", b'{"d1":18446744073709551616}'),
    "a time beyond RFC 3339 in a sealed header": ("envelope", FAR_SEALED),
    "a time beyond RFC 3339 in a key's row": ("accounts-rows", framed((FAR_KEY,))),
}


@pytest.mark.parametrize("what", [*FOUND])
def test_what_was_found_stays_away(what, folder):
    name, data = FOUND[what]
    with contextlib.closing(TARGETS[name](folder)) as made:
        made.check(data)
