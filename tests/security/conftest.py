"""Systems to attack: each a set of real processes, whose logs may hold no secret at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.cluster import ADMIN_KEY, JOIN_TOKEN, MASTER_KEY, Cluster, discreet_programs
from support.programs import Programs


@pytest.fixture
def started(tmp_path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as programs:
        yield programs


@pytest.fixture
def guarded(started, tmp_path) -> Cluster:
    """A cluster on a directory, with an admin key and a join token."""
    return Cluster(
        started,
        (f"-shared-fs={tmp_path / 'db'}", f"-join-token={JOIN_TOKEN}", "-cache-bytes=0"),
        tmp_path / "state",
        {"MASTER_KEY": MASTER_KEY, "ADMIN_KEY": ADMIN_KEY, "JOIN_TOKEN": JOIN_TOKEN},
    ).start("one")
