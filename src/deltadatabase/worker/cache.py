"""Committed values of owned entities: an LRU bounded by bytes, each entry tagged with a term.

An entry answers only requests of exactly its term (ARCHITECTURE section 3.2): what another
owner may have written since is then never hidden by it.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from deltadatabase.model import Header

ENTRY_OVERHEAD_BYTES = 1024
"""Measured cost of an entry beside its document: structs, strings and dictionary slots."""

Name = tuple[str, str]
"""Schema id and key."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A committed state of one entity.

    Attributes:
        term: of the request that began the read or write that filled the entry.
        header: None when the store holds no object.
        document: b"" for an absent entity or tombstone.
        store_etag: the store's ETag of the object, "" when there is none.
        etag: the entity's own ETag, "" while it is absent or deleted.
        filled_s: monotonic seconds at which it was filled.
    """

    term: int
    header: Header | None
    document: bytes
    store_etag: str
    etag: str
    filled_s: float


class Cache:
    """Least recently used entries go first.

    Args:
        bytes_max: bound on documents plus overhead; 0 keeps nothing.
        entries_max: bound on entries; 0: by bytes only.
        ttl_s: age at which an entry is no longer used; 0: never.

    Attributes:
        bytes_used: present cost of all entries.
        hits: how often an entry was found that answers.
        evictions: entries that went to make room.
    """

    def __init__(self, *, bytes_max: int, entries_max: int = 0, ttl_s: float = 0.0) -> None:
        self._entries: OrderedDict[Name, Entry] = OrderedDict()
        self._entries_max = entries_max
        self._ttl_s = ttl_s
        self.bytes_used = 0
        self.bytes_max = bytes_max
        self.hits = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: Name, term: int, now_s: float) -> Entry | None:
        """Return the entry if it was filled under exactly this term and is not too old."""
        entry = self._entries.get(name)
        if entry is None or entry.term != term:
            return None
        if self._ttl_s and now_s - entry.filled_s > self._ttl_s:
            self.evict(name)
            return None
        self._entries.move_to_end(name)
        self.hits += 1
        return entry

    def put(self, name: Name, entry: Entry) -> None:
        """Keep an entry, and let the least recently used ones go for it."""
        self.evict(name)
        cost = len(entry.document) + ENTRY_OVERHEAD_BYTES
        if cost > self.bytes_max:
            return
        self._entries[name] = entry
        self.bytes_used += cost
        while self.bytes_used > self.bytes_max or 0 < self._entries_max < len(self._entries):
            _, gone = self._entries.popitem(last=False)
            self.bytes_used -= len(gone.document) + ENTRY_OVERHEAD_BYTES
            self.evictions += 1

    def evict(self, name: Name) -> None:
        """Forget an entity; the next request reads the store."""
        if (gone := self._entries.pop(name, None)) is not None:
            self.bytes_used -= len(gone.document) + ENTRY_OVERHEAD_BYTES

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.bytes_used = 0
