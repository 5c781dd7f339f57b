"""The term-tagged cache."""

from deltadatabase.worker.cache import ENTRY_OVERHEAD_BYTES, Cache, Entry


def entry(term: int = 1, size: int = 100, filled_s: float = 0.0) -> Entry:
    return Entry(term, None, b"x" * size, "", "", filled_s)


def test_an_entry_answers_its_own_term_only() -> None:
    cache = Cache(bytes_max=1 << 20)
    cache.put(("s", "k"), entry(term=5))
    assert cache.get(("s", "k"), 5, 0.0) is not None
    assert cache.get(("s", "k"), 4, 0.0) is None
    assert cache.get(("s", "k"), 6, 0.0) is None


def test_bytes_are_bounded_and_the_least_recently_used_goes() -> None:
    cache = Cache(bytes_max=3 * (ENTRY_OVERHEAD_BYTES + 100))
    for key in "abc":
        cache.put(("s", key), entry())
    cache.get(("s", "a"), 1, 0.0)
    cache.put(("s", "d"), entry())
    assert cache.get(("s", "b"), 1, 0.0) is None
    assert cache.get(("s", "a"), 1, 0.0) is not None
    assert cache.bytes_used == 3 * (ENTRY_OVERHEAD_BYTES + 100)


def test_replacing_and_evicting_keep_the_count_right() -> None:
    cache = Cache(bytes_max=1 << 20)
    cache.put(("s", "k"), entry(size=10))
    cache.put(("s", "k"), entry(size=500))
    assert cache.bytes_used == ENTRY_OVERHEAD_BYTES + 500
    cache.evict(("s", "k"))
    cache.evict(("s", "k"))
    assert (cache.bytes_used, len(cache)) == (0, 0)


def test_what_is_larger_than_the_cache_is_not_kept_and_hides_nothing() -> None:
    cache = Cache(bytes_max=ENTRY_OVERHEAD_BYTES + 10)
    cache.put(("s", "k"), entry(size=10))
    cache.put(("s", "k"), entry(size=11))
    assert cache.get(("s", "k"), 1, 0.0) is None


def test_entries_and_age_are_bounded() -> None:
    cache = Cache(bytes_max=1 << 20, entries_max=2, ttl_s=10.0)
    for key in "abc":
        cache.put(("s", key), entry(filled_s=0.0))
    assert len(cache) == 2
    assert cache.get(("s", "c"), 1, 10.0) is not None
    assert cache.get(("s", "c"), 1, 10.1) is None
    assert len(cache) == 1
