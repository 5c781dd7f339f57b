"""What a review found of listings of directories."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.clocks import FakeClock, SeededRandom

from deltadatabase.errors import Unavailable
from deltadatabase.storage.base import When
from deltadatabase.storage.local import DirectoryObjects


@pytest.mark.xfail(strict=True, reason="a missing folder lists as an empty one")
async def test_a_volume_that_is_gone_does_not_list_as_an_empty_one(tmp_path: Path) -> None:
    """``get`` tells it apart, and a rotation ends its walk, and retires a key, at an empty page."""
    store = DirectoryObjects(
        tmp_path / "data", clock=FakeClock(), random=SeededRandom(), on_fatal=lambda _: None
    )
    try:
        await store.put("files/s/a.json.enc", b"x", When.ABSENT)
        (tmp_path / "data").rename(tmp_path / "away")
        with pytest.raises(Unavailable):
            await store.list("files/")
    finally:
        await store.close()
