"""What a worker's engine did, in plain integers of its event loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Counted since the start; each costs one addition.

    Attributes:
        cache_misses: entities read from the store because the cache could not answer.
        seals, opens: entities sealed, and opened with success.
        puts: puts of entities that were confirmed.
        writes: writes that were in them.
        put_retries, get_retries: requests to the store that were repeated.
        integrity_failures: commands that met a damaged or forged entity.
    """

    cache_misses: int = 0
    seals: int = 0
    opens: int = 0
    puts: int = 0
    writes: int = 0
    put_retries: int = 0
    get_retries: int = 0
    integrity_failures: int = 0
