"""What a program changes in the process that it runs in, put back for the tests after it."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def restored() -> Iterator[None]:
    """Run a program of ours in here: logging and limits are afterwards what they were."""
    root, ours = logging.getLogger(), logging.getLogger("deltadatabase")
    before = (root.handlers[:], root.level, ours.level, logging.raiseExceptions)
    cores = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, cores)
        root.handlers[:], level, our_level, logging.raiseExceptions = before
        root.setLevel(level)
        ours.setLevel(our_level)
        structlog.reset_defaults()
