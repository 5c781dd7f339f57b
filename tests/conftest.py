"""Fixtures of every kind of test, and how the tests are dealt out to processes that run beside each other.

What costs time is made once a process, and only when asked for.
"""
# ruff: noqa: INP001 - `tests` is no package: its folders are, so that `support` can be imported

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.weed import S3Server, running_weed


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, which makes what they share once, unless marked ``spread``.

    ``xdist_group`` puts tests of several files into one process, where they never run beside each other.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None and item.get_closest_marker("spread") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server of this process. Whoever stops or pauses one starts an own one."""
    with running_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server
