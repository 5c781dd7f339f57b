"""A store with sealed entities in it, and a scrub of it without a program around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.maintenance.checking import Tasks
from deltadatabase.maintenance.findings import Ledger
from deltadatabase.maintenance.offline import Rules
from deltadatabase.maintenance.position import Position
from deltadatabase.maintenance.scrub import Outside, Scrub
from deltadatabase.model import Header
from deltadatabase.storage.base import Store, When
from deltadatabase.storage.database import open_database, read_database
from deltadatabase.storage.paths import entity_path, meta_path
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore

KEY = MasterKey(b"k" * 32)
OTHER_KEY = MasterKey(b"o" * 32)


@dataclass
class Scrubbed:
    """A store and what a scrub of it needs."""

    store: Any = field(default_factory=FakeStore)
    keyring: Keyring = field(default_factory=lambda: Keyring(KEY))
    clock: FakeClock = field(default_factory=FakeClock)
    random: SeededRandom = field(default_factory=lambda: SeededRandom(4))
    saved: list[Position] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)

    @property
    def sealer(self) -> Sealer:
        return Sealer(self.keyring, self.random)

    async def create(self) -> None:
        """Make the database's description."""
        store: Store = self.store
        await open_database(
            store,
            random=self.random,
            shards=16,
            create=lambda info: type(info)(
                **{
                    **{name: getattr(info, name) for name in info.__struct_fields__},
                    "keys": {KEY.key_id.hex(): KEY.check_value(info.database_id)},
                }
            ),
            check=lambda info: None,
        )

    def sealed(
        self,
        schema_id: str,
        key: str,
        document: bytes = b"{}",
        *,
        version: int = 1,
        term: int = 3,
        tombstone: bool = False,
        sealer: Sealer | None = None,
    ) -> bytes:
        """Seal an entity."""
        header = Header(
            schema_id=schema_id,
            key=key,
            version=version,
            term=term,
            updated_ms=self.clock.wall_ms(),
            write_id=self.random(16),
            tombstone=tombstone,
        )
        return (sealer or self.sealer).seal(header, b"" if tombstone else document)

    async def entity(self, schema_id: str, key: str, *, meta: bool = True, **more: Any) -> bytes:
        """Store an entity and its meta file."""
        data = self.sealed(schema_id, key, **more)
        await self.store.put(entity_path(schema_id, key), data, When.ALWAYS)
        if meta:
            await self.store.put(meta_path(schema_id, key), self.meta(data), When.ALWAYS)
        return data

    def meta(self, data: bytes) -> bytes:
        """The meta file of a sealed entity."""
        return self.sealer.meta_json(data)

    async def damage(self, path: str, change: Callable[[bytes], bytes]) -> bytes:
        """Change an object's bytes."""
        data = change((await self.store.get(path)).data)
        await self.store.put(path, data, When.ALWAYS)
        return data

    async def scrub(
        self,
        *,
        resumed: Position | None = None,
        stopping: Callable[[], bool] = lambda: False,
        rules: Rules | None = None,
        **tasks: bool,
    ) -> tuple[bool, Ledger]:
        """Scrub once; whether it came to the end, and what it found."""
        scrub = Scrub(
            self.store,
            self.sealer,
            await read_database(self.store),
            Tasks(**tasks),
            Outside(
                clock=self.clock,
                random=self.random,
                progress=self.progress.append,
                save=self._save,
                stopping=stopping,
                rules=rules or Rules(),
                pause_s=0.0,
            ),
            resumed=resumed,
        )
        return await scrub.run(), scrub.ledger

    async def found(self, **tasks: Any) -> Mapping[str, int]:
        """Scrub once; what was found how often, and done about it."""
        complete, ledger = await self.scrub(**tasks)
        assert complete
        return ledger.counts.found

    async def _save(self, position: Position) -> None:
        import msgspec

        # As it would be read again: the ledger goes on growing.
        self.saved.append(msgspec.json.decode(msgspec.json.encode(position), type=Position))


def flipped(offset: int) -> Callable[[bytes], bytes]:
    """Flip one bit."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[offset] ^= 1
        return bytes(changed)

    return change
