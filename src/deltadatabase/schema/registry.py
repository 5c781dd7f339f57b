"""The schemas in force on one worker: which revision of each is known, and its compiled form.

The router numbers the changes of each schema and sends the number with every request. This
registry promises that a schema given out for a revision was read after that revision was
learned, so a template read earlier, and perhaps already replaced, never passes for a newer one.
No clock and no randomness: everything follows from the calls and the source's answers.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import Final, Protocol, TypeVar

from deltadatabase import limits
from deltadatabase.errors import Conflict, Invalid
from deltadatabase.schema.validator import UNVALIDATED, CompiledSchema, compile_schema

_INLINE_COMPILE_BYTES_MAX: Final = 16 * limits.KIB
"""Larger schemas compile in a thread: they may take long enough to delay the event loop."""

_K = TypeVar("_K")
_V = TypeVar("_V")


class SchemaSource(Protocol):
    """Where templates are stored."""

    async def template(self, schema_id: str) -> bytes | None:
        """Read the stored template's bytes afresh; None when there is none."""
        ...


class _Fetch:
    """One read of a template, begun when ``revision`` was the newest one known."""

    __slots__ = ("revision", "task")

    def __init__(self, revision: int, task: asyncio.Task[CompiledSchema | Conflict]) -> None:
        self.revision = revision
        self.task = task


class SchemaRegistry:
    """Compiled schemas by id and revision; both caches are bounded and forget the least used first.

    To forget is always safe: what is absent is fetched.
    """

    def __init__(
        self,
        source: SchemaSource,
        *,
        compiled_count_max: int = limits.SCHEMAS_COMPILED_MAX,
        revision_count_max: int = limits.SCHEMA_REVISIONS_MAX,
    ) -> None:
        self._source = source
        self._compiled_count_max = compiled_count_max
        self._revision_count_max = revision_count_max
        self._in_force: OrderedDict[str, tuple[int, CompiledSchema | Conflict]] = OrderedDict()
        self._by_hash: OrderedDict[str, CompiledSchema | Conflict] = OrderedDict()
        self._fetches: dict[str, _Fetch] = {}
        self._tasks: set[asyncio.Task[CompiledSchema | Conflict]] = set()

    def cached(self, schema_id: str, revision: int) -> CompiledSchema | None:
        """Give the schema at ``revision`` or a later one; None when it must be fetched.

        Raises:
            Conflict: ``template_invalid``: what is stored is not a valid schema.
        """
        entry = self._in_force.get(schema_id)
        if entry is None or entry[0] < revision:
            return None
        self._in_force.move_to_end(schema_id)
        return _usable(entry[1])

    async def get(self, schema_id: str, revision: int) -> CompiledSchema:
        """Give the schema at ``revision`` or a later one, fetching it when this worker is behind.

        Callers that need the same fetch share it; a cancelled caller does not end it for others.

        Raises:
            Conflict: ``template_invalid``: what is stored is not a valid schema.
            DeltaError: whatever the source raises; nothing is remembered then.
        """
        schema = self.cached(schema_id, revision)
        if schema is None:
            fetch = self._fetches.get(schema_id)
            if fetch is None or fetch.revision < revision:
                fetch = self._begin(schema_id, revision)
            return _usable(await asyncio.shield(fetch.task))
        return schema

    def _begin(self, schema_id: str, revision: int) -> _Fetch:
        task = asyncio.get_running_loop().create_task(self._fetch(schema_id, revision))
        self._tasks.add(task)  # The loop itself holds tasks only weakly.
        fetch = _Fetch(revision, task)
        self._fetches[schema_id] = fetch

        def end(done: asyncio.Task[CompiledSchema | Conflict]) -> None:
            self._tasks.discard(done)
            if self._fetches.get(schema_id) is fetch:
                del self._fetches[schema_id]
            if not done.cancelled():
                done.exception()  # Every caller may be gone; the error is then nobody's.

        task.add_done_callback(end)
        return fetch

    async def _fetch(self, schema_id: str, revision: int) -> CompiledSchema | Conflict:
        text = await self._source.template(schema_id)
        schema = UNVALIDATED if text is None else await self._compiled(text)
        known = self._in_force.get(schema_id)
        if known is None or known[0] <= revision:
            _remember(self._in_force, schema_id, (revision, schema), self._revision_count_max)
        return schema

    async def _compiled(self, text: bytes) -> CompiledSchema | Conflict:
        digest = hashlib.sha256(text).hexdigest()
        schema = self._by_hash.get(digest)
        if schema is None:
            try:
                if len(text) > _INLINE_COMPILE_BYTES_MAX:
                    schema = await asyncio.to_thread(compile_schema, text)
                else:
                    schema = compile_schema(text)
            except Invalid as exc:
                schema = Conflict(
                    f"the stored template is not a valid schema ({exc.detail}); "
                    "put a valid one in its place or delete it",
                    code="template_invalid",
                )
        _remember(self._by_hash, digest, schema, self._compiled_count_max)
        return schema


def _usable(result: CompiledSchema | Conflict) -> CompiledSchema:
    if isinstance(result, Conflict):
        # A fresh one each time: a raised exception gathers traceback and context.
        raise Conflict(result.detail, code=result.code)
    return result


def _remember(cache: OrderedDict[_K, _V], name: _K, value: _V, count_max: int) -> None:
    cache[name] = value
    cache.move_to_end(name)
    while len(cache) > count_max:
        cache.popitem(last=False)
