"""Entity to shard, and shard to member by consistent hashing. Pure.

The shard of an entity never changes (ARCHITECTURE: a fixed number of shards); the member
of a shard changes as little as consistent hashing allows when members come and go.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from uhashring import HashRing

VIRTUAL_NODES = 160
"""Points of a member on the ring; more would even out the load a little and cost start-up time."""


@lru_cache(maxsize=8192)
def shard_of(schema_id: str, key: str, shards: int) -> int:
    """Return the shard of an entity: BLAKE2b-64 of ``schema_id NUL key`` modulo ``shards``.

    Neither part can hold a NUL, so the pair is unambiguous. Part of the stored format's
    contract: every program that ever runs on one database must compute the same.
    """
    digest = blake2b(f"{schema_id}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def shard_owners(worker_ids: Iterable[str], shards: int) -> tuple[str, ...]:
    """Return the worker id that owns each shard, by index; empty when there is no worker.

    Depends on the set of ids alone, never on the order in which they joined.
    """
    return _owners(tuple(sorted(worker_ids)), shards)


@lru_cache(maxsize=32)
def _owners(worker_ids: tuple[str, ...], shards: int) -> tuple[str, ...]:
    if not worker_ids:
        return ()
    ring = HashRing(nodes=list(worker_ids), vnodes=VIRTUAL_NODES)
    return tuple(str(ring.get_node(f"shard-{index}")) for index in range(shards))
