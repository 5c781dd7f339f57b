"""Fixtures of every kind of test. What costs time is made once a run, and only when asked for."""
# ruff: noqa: INP001 - `tests` is no package: its folders are, so that `support` can be imported

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.weed import S3Server, running_weed


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole run. Whoever stops or pauses one starts an own one."""
    with running_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server
