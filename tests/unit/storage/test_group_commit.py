"""How the committing thread gathers what waits; the directory backend's tests show the rest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clocks import FakeClock

from deltadatabase.storage.base import When
from deltadatabase.storage.batch import BatchCommitter, digest
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.disk import OsDisk
from deltadatabase.storage.group_commit import GroupCommitter


@pytest.fixture(params=[True, False], ids=["syncfs", "fsync"])
def committer(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[GroupCommitter]:
    syncfs: bool = request.param
    committer = GroupCommitter(
        lambda answer: BatchCommitter(
            tmp_path, disk=OsDisk(), clock=FakeClock(), syncfs=syncfs, answer=answer
        ),
        on_fatal=pytest.fail,
    )
    yield committer
    committer.close()


async def test_many_files_need_few_syncs_where_one_does_for_all(
    committer: GroupCommitter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), fsync(fd)))
    loop = asyncio.get_running_loop()
    layout = DirectoryLayout(tmp_path, os.urandom)
    for folder in layout.own_folders:
        folder.mkdir(parents=True, exist_ok=True)
    commits = [
        layout.commit(f"{number}", b"%d" % number, When.ABSENT, 1e9, loop.create_future())
        for number in range(200)
    ]
    for commit in commits:
        committer.submit(commit)
    etags = await asyncio.gather(*(commit.future for commit in commits))
    assert etags == [digest(b"%d" % number) for number in range(200)]
    assert [(tmp_path / f"{number}").read_bytes() for number in range(200)] == [b"%d" % n for n in range(200)]
    if "syncfs" in request.node.name:
        assert len(synced) < 100
    else:
        assert len(synced) > 200


def test_equal_bytes_are_the_same_etag_and_others_are_not() -> None:
    assert digest(b"a") == digest(b"a")
    assert len({digest(b""), digest(b"a"), digest(b"b")}) == 3
