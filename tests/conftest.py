"""Fixtures of every kind of test, and how the tests are dealt out to processes that run beside each other.

What costs time is made once a process, and only when asked for.
"""
# ruff: noqa: INP001 - `tests` is no package: its folders are, so that `support` can be imported

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.dealing import Dealing, comes_last
from support.weed import S3Server, running_weed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: comes_last(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Dealing:
    config.option.loadscopereorder = False  # By number of tests, which says nothing of their length.
    return Dealing(config, log)


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server of this process. Whoever stops or pauses one starts an own one."""
    with running_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server
