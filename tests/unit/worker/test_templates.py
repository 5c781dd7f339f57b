"""Templates in the store."""

from __future__ import annotations

import pytest
from support.fake_store import FakeStore, Faults

from deltadatabase.errors import Conflict, NotFound, NotOwner
from deltadatabase.storage.base import When
from deltadatabase.storage.objects import MemoryObjects
from deltadatabase.storage.paths import template_path
from deltadatabase.worker.templates import Templates


def always() -> bool:
    return True


async def test_replace_read_list_and_remove() -> None:
    templates = Templates(FakeStore())
    assert await templates.template("s") is None
    await templates.replace("s", b"{}", always)
    await templates.replace("s", b"true", always)
    assert await templates.template("s") == b"true"
    assert await templates.schema_ids() == ("s",)
    await templates.remove("s", always)
    with pytest.raises(NotFound):
        await templates.remove("s", always)


async def test_a_lost_reply_is_recognised() -> None:
    store = FakeStore()
    Faults(store, "stored")
    await Templates(store).replace("s", b"{}", always)


async def test_a_worker_that_was_stopped_undoes_nothing() -> None:
    """It read the template, lost its membership, and comes back after somebody else's change."""
    store = FakeStore()
    templates = Templates(store)
    await templates.replace("s", b"1", always)
    alive = True

    def meanwhile(operation: str, path: str) -> None:
        nonlocal alive
        if operation == "get" and alive:
            alive = False

    store.before = meanwhile
    with pytest.raises(NotOwner):
        await templates.replace("s", b"late", lambda: alive)
    alive = True
    with pytest.raises(NotOwner):
        await templates.remove("s", lambda: alive)
    assert store.objects[template_path("s")].data == b"1"


async def test_a_put_that_lands_late_undoes_nothing() -> None:
    store = FakeStore()
    templates = Templates(store)
    await templates.replace("s", b"1", always)
    other = Templates(store)
    asked = 0

    async def replaced_meanwhile(operation: str, path: str) -> None:
        nonlocal asked
        if operation == "put" and not asked:
            asked += 1
            store.before = None
            await other.replace("s", b"newer", always)

    store.before = replaced_meanwhile
    with pytest.raises(NotOwner):
        await templates.replace("s", b"late", lambda: not asked)
    assert store.objects[template_path("s")].data == b"newer"


async def test_what_is_too_large_to_be_a_template_can_be_deleted() -> None:
    store = MemoryObjects(object_bytes_max=10)
    templates = Templates(store)
    await MemoryObjects.put(store, template_path("s"), b"x" * 11, When.ALWAYS)
    for attempt in (templates.template("s"), templates.replace("s", b"{}", always)):
        with pytest.raises(Conflict) as caught:
            await attempt
        assert caught.value.code == "template_invalid"
    await templates.remove("s", always)
    await templates.replace("s", b"{}", always)
    assert await templates.template("s") == b"{}"
