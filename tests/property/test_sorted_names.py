"""Packed names against a plain set, in any order of changes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from deltadatabase.storage.sorted_names import SortedNames

# Few letters, those among them that sort on both sides of a suffix's dot; so that names meet.
NAMES = st.text(alphabet="-.0aj=é", min_size=1, max_size=4)
SUFFIXES = st.sampled_from(("", ".json.enc"))


class Machine(RuleBasedStateMachine):
    @initialize(suffix=SUFFIXES, block=st.integers(2, 6))
    def begin(self, suffix: str, block: int) -> None:
        self.suffix = suffix
        self.names = SortedNames(suffix, block_names_max=block)
        self.model: set[str] = set()

    @rule(name=NAMES)
    def add(self, name: str) -> None:
        self.names.add(name)
        self.model.add(name)

    @rule(name=NAMES)
    def discard(self, name: str) -> None:
        self.names.discard(name)
        self.model.discard(name)

    @rule(names=st.lists(NAMES, max_size=30))
    def update(self, names: list[str]) -> None:
        self.names.update(names)
        self.model.update(names)

    @rule(
        after=st.one_of(st.just(""), NAMES),
        prefix=st.text(alphabet="-.0aj=é", max_size=2),
        count=st.integers(1, 9),
    )
    def page(self, after: str, prefix: str, count: int) -> None:
        order = after + self.suffix if after else ""
        expected = [name for name in self.sorted() if name + self.suffix > order and name.startswith(prefix)]
        assert self.names.after(after, prefix, count=count) == expected[:count]

    @rule(name=NAMES)
    def contains(self, name: str) -> None:
        assert (name in self.names) == (name in self.model)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "names"):
            assert self.names.after("") == self.sorted()
            assert len(self.names) == len(self.model)
            letters = sum(map(len, self.model)) + len(self.model)
            assert letters <= self.names.bytes <= letters + 250 * len(self.model)

    def sorted(self) -> list[str]:
        return sorted(self.model, key=lambda name: name + self.suffix)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSortedNames = Machine.TestCase


@given(st.lists(NAMES, max_size=200), st.integers(1, 7), SUFFIXES)
@settings(max_examples=50, deadline=None)
def test_pages_put_together_are_the_whole(names: list[str], size: int, suffix: str) -> None:
    packed = SortedNames(suffix)
    packed.update(names)
    pages: list[str] = []
    while page := packed.after(pages[-1] if pages else "", count=size):
        pages += page
    assert pages == sorted(set(names), key=lambda name: name + suffix)


def test_many_names_take_little_more_than_their_letters() -> None:
    packed = SortedNames(".json.enc")
    packed.update(f"session_{number:07}" for number in range(100_000))
    assert len(packed) == 100_000
    assert packed.bytes < 20 * 100_000
