"""Schema templates in the store: reading, conditional replacement, and what changed there."""

from __future__ import annotations

from collections.abc import Callable

from deltadatabase.errors import (
    AlreadyExists,
    Conflict,
    Corrupt,
    NotFound,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    VersionMismatch,
)
from deltadatabase.limits import COMMIT_ATTEMPTS_MAX, LIST_PAGE_MAX
from deltadatabase.storage.base import Condition, ObjectInfo, Store, Stored, When
from deltadatabase.storage.paths import FILES, TEMPLATES, parse_template_path, template_path


class Templates:
    """The folder ``templates/`` of one store. Also the schema registry's source."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def template(self, schema_id: str) -> bytes | None:
        """Return a template's exact bytes, None when there is none.

        Raises:
            Conflict: ``template_invalid``: what is stored there is no template of any size.
        """
        stored = await self._stored(schema_id)
        return None if stored is None else stored.data

    async def replace(self, schema_id: str, text: bytes, may_put: Callable[[], bool]) -> None:
        """Store a template.

        Conditional on what was just read, and asked of ``may_put`` before each put: so neither a
        put that lands late nor a worker that was stopped in between undoes a newer template.

        Raises:
            NotOwner: ``may_put`` says no; nothing was stored.
            OutcomeUnknown: the store did not say whether it was stored.
            Overloaded: others kept replacing it.
            Conflict: ``template_invalid``, as ``template``.
        """
        path = template_path(schema_id)
        for _ in range(COMMIT_ATTEMPTS_MAX):
            stored = await self._stored(schema_id)
            condition: Condition = When.ABSENT
            if stored is not None:
                if stored.data == text:
                    return
                condition = stored.etag
            if not may_put():
                raise NotOwner("membership is not known to be alive")
            try:
                await self._store.put(path, text, condition)
            except (AlreadyExists, VersionMismatch):
                continue
            except OutcomeUnknown:
                if await self.template(schema_id) == text:
                    return
                raise
            return
        raise Overloaded("others kept replacing this schema", code="contended")

    async def remove(self, schema_id: str, may_delete: Callable[[], bool]) -> None:
        """Remove a template. Raises NotFound when there is none, NotOwner like ``replace``."""
        path = template_path(schema_id)
        try:
            await self._store.head(path)
        except NotFound:
            raise NotFound("there is no such schema", code="schema_not_found") from None
        if not may_delete():
            raise NotOwner("membership is not known to be alive")
        await self._store.delete(path)

    async def _stored(self, schema_id: str) -> Stored | None:
        try:
            return await self._store.get(template_path(schema_id))
        except NotFound:
            return None
        except Corrupt:
            # By its size, unread: an S3 client may have put anything there.
            raise Conflict(
                "the stored template is too large, or no file; delete it (DELETE /schema), then put one",
                code="template_invalid",
            ) from None

    async def snapshot(self) -> dict[str, str]:
        """Return every template's schema id with a token that changes when its bytes do."""
        return {
            schema_id: info.etag or f"{info.updated_ms}-{info.size_bytes}"
            for info in await self._list(TEMPLATES)
            if (schema_id := parse_template_path(info.path)) is not None
        }

    async def schema_ids(self) -> tuple[str, ...]:
        """Return the ids of all templates, ascending."""
        return tuple(sorted(await self.snapshot()))

    async def namespaces(self, is_tombstone_size: Callable[[int], bool]) -> tuple[str, ...]:
        """Return every schema id that holds a live entity or a template, ascending."""
        names = set(await self.snapshot())
        for folder in await self._store.folders(FILES):
            if folder not in names and await self._holds_entity(f"{FILES}{folder}/", is_tombstone_size):
                names.add(folder)
        return tuple(sorted(names))

    async def _holds_entity(self, prefix: str, is_tombstone_size: Callable[[int], bool]) -> bool:
        after = ""
        while page := await self._store.list(prefix, after=after, limit=LIST_PAGE_MAX):
            if any(
                info.path.endswith(".json.enc") and not is_tombstone_size(info.size_bytes) for info in page
            ):
                return True
            if len(page) < LIST_PAGE_MAX:
                break
            after = page[-1].path
        return False

    async def _list(self, prefix: str) -> list[ObjectInfo]:
        found: list[ObjectInfo] = []
        after = ""
        while page := await self._store.list(prefix, after=after, limit=LIST_PAGE_MAX):
            found.extend(page)
            if len(page) < LIST_PAGE_MAX:
                break
            after = page[-1].path
        return found
