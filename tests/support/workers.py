"""Parts of a worker for tests: schemas without a store, a lease with a switch."""

from __future__ import annotations

import asyncio

from deltadatabase.clock import Clock
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import Invalid
from deltadatabase.storage.base import Store
from deltadatabase.worker.cache import Cache
from deltadatabase.worker.commit import Committer
from deltadatabase.worker.ports import Schemas as SchemasPort
from deltadatabase.worker.ports import Sidecar, StoredNames
from support.clocks import SeededRandom

KEYRING = Keyring(MasterKey(b"\x07" * 32))


class NoSchema:
    hash = ""
    demanding = False

    def check(self, key: str, document: bytes) -> None:
        if document == b"bad":
            raise Invalid("refused")

    def demands_conditions(self, key: str) -> bool:
        return self.demanding


class Schemas:
    """Every schema id has one schema that refuses the document ``bad``."""

    def __init__(self) -> None:
        self.schema = NoSchema()

    def cached(self, schema_id: str, revision: int) -> NoSchema | None:
        return None

    async def get(self, schema_id: str, revision: int) -> NoSchema:
        await asyncio.sleep(0)
        return self.schema


class Lease:
    def __init__(self) -> None:
        self.alive = True

    def holds(self) -> bool:
        return self.alive


def make_committer(
    store: Store,
    *,
    clock: Clock,
    lease: Lease | None = None,
    sidecar: Sidecar | None = None,
    names: StoredNames | None = None,
    seed: int = 0,
    schemas: SchemasPort | None = None,
    sealer: Sealer | None = None,
) -> Committer:
    """Build the committer of one worker on ``store``."""
    sealer = sealer or Sealer(KEYRING, SeededRandom(seed))
    return Committer(
        store,
        lambda: sealer,
        schemas or Schemas(),
        Cache(bytes_max=1 << 20),
        clock=clock,
        lease=lease or Lease(),
        sidecar=sidecar,
        names=names,
    )
