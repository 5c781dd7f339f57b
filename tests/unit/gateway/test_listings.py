"""Pages of several owners put together, and how the router gets them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clocks import FakeClock, SeededRandom

from deltadatabase.errors import Corrupt, DeltaError, LinkLost, NotOwner, Unavailable
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.listings import merged, share_of
from deltadatabase.gateway.moves import STORE_GONE
from deltadatabase.model import Command, ListedEntity, Op, Result
from deltadatabase.placement.membership import Member, Placement
from deltadatabase.storage.paths import listing_order

SHARDS = 8


def result(names: list[str], following: str = "") -> Result:
    return Result(entities=tuple(ListedEntity(name, 1, 2) for name in names), next=following)


@given(
    st.sets(st.text("-.ab", min_size=1, max_size=3), max_size=20),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 9),
    st.randoms(use_true_random=False),
)
def test_merged_pages_walk_the_whole_once(names, owners, share, limit, rng) -> None:  # type: ignore[no-untyped-def]
    ordered = sorted(names, key=listing_order)
    parts = [[name for name in ordered if rng.random() < 0.5] for _ in range(owners - 1)]
    parts.append([name for name in ordered if not any(name in part for part in parts)])
    gone = {name for name in ordered if rng.random() < 0.3}
    found: list[str] = []
    after = ""
    for _ in range(len(ordered) + 2):
        pages = []
        for part in parts:
            behind = [name for name in part if not after or listing_order(name) > listing_order(after)]
            shown = behind[:share]
            more = shown[-1] if len(shown) < len(behind) else ""
            # Looked at, and not to be shown: deleted.
            kept = [name for name in shown if name not in gone]
            pages.append(result(kept, more))
        page = merged(pages, limit)
        assert len(page.entities) <= limit
        found += [entity.name for entity in page.entities]
        if not page.next:
            break
        after = page.next
    assert found == [name for name in ordered if name not in gone]


def test_nothing_behind_the_end_of_one_page_counts() -> None:
    page = merged([result(["a", "c"], "c"), result(["b", "d", "e"])], 10)
    assert [entity.name for entity in page.entities] == ["a", "b", "c"]
    assert page.next == "c"


def test_a_page_without_entities_still_says_where_to_go_on() -> None:
    page = merged([result([], "m"), result(["b", "z"])], 10)
    assert [entity.name for entity in page.entities] == ["b"]
    assert page.next == "m"


def test_the_last_page_ends() -> None:
    assert merged([result(["a"]), result(["b"])], 2).next == ""
    assert merged([result(["a"]), result(["b"])], 1).next == "a"


def test_owners_are_asked_for_their_share() -> None:
    assert share_of(1000, 1) == 1000
    assert share_of(1, 3) == 1
    assert 400 < share_of(1000, 3) < 600


class Owner:
    """Answers with what it is told."""

    local = False

    def __init__(self, *answers: Result | DeltaError) -> None:
        self.answers = list(answers)
        self.asked: list[Command] = []
        self.on_call = lambda: None

    async def call(self, command: Command) -> Result:
        self.asked.append(command)
        await asyncio.sleep(0)
        self.on_call()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, DeltaError):
            raise answer
        return answer


async def router_with(*owners: Owner, backend: str = "directory") -> Router:
    router = Router(clock=FakeClock(tick_s=0.001), random=SeededRandom(1), timeout_ms=1000)
    router.bind(Placement(SHARDS, epoch=100, epoch_limit=1000), backend=backend)
    for number, owner in enumerate(owners):
        await router.join(Member(f"w{number}", f"w{number}"), owner)
    return router


async def names(router: Router, limit: int = 10) -> list[str]:
    page = await router.list("s", prefix="p", after="o", limit=limit, deleted=True)
    return [entity.name for entity in page.entities]


async def test_each_owner_is_asked_about_just_its_shards() -> None:
    one, two = Owner(result(["a", "d"])), Owner(result(["b", "c"]))
    router = await router_with(one, two)
    assert await names(router) == ["a", "b", "c", "d"]
    asked = one.asked[0], two.asked[0]
    for command in asked:
        assert (command.op, command.schema_id, command.prefix, command.key) == (Op.LIST, "s", "p", "o")
        assert command.deleted
    assert router.placement is not None
    assert [
        sum(terms) for terms in zip(*(command.terms for command in asked), strict=True)
    ] == router.placement.terms


async def test_elsewhere_any_one_worker_is_asked() -> None:
    one, two = Owner(result(["a"])), Owner(result(["a"]))
    router = await router_with(one, two, backend="s3")
    assert await names(router) == ["a"]
    assert len(one.asked) + len(two.asked) == 1
    assert not any((one.asked + two.asked)[0].terms)


async def test_answers_under_a_table_that_changed_do_not_count() -> None:
    one, two, three = Owner(result(["old"]), result(["a"])), Owner(result(["b"])), Owner(result(["c"]))
    router = await router_with(one, two)
    joined = False

    def join() -> None:
        nonlocal joined
        if not joined:
            joined = True
            task = asyncio.ensure_future(router.join(Member("w9", "w9"), three))
            tasks.append(task)

    tasks: list[asyncio.Future[None]] = []
    one.on_call = join
    # What the second owner says takes until the third one has its shards.
    two.answers = [result(["b"])]
    slow = two.call

    async def call(command: Command) -> Result:
        answer = await slow(command)
        if len(two.asked) == 1:
            await asyncio.gather(*tasks)
        return answer

    two.call = call  # type: ignore[method-assign]
    assert await names(router) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "error", [NotOwner("moved"), LinkLost("broke"), Unavailable("down", code="link_down")]
)
async def test_an_owner_that_is_lost_is_asked_again(error: DeltaError) -> None:
    router = await router_with(Owner(error, result(["a"])), Owner(result(["b"])))
    assert await names(router) == ["a", "b"]


async def test_other_failures_are_the_answer() -> None:
    router = await router_with(Owner(Corrupt("damaged")), Owner(result(["b"])))
    with pytest.raises(Corrupt):
        await names(router)


async def test_a_request_that_workers_die_of_is_given_up() -> None:
    router = await router_with(Owner(LinkLost("broke")))
    with pytest.raises(Unavailable):
        await names(router)


@pytest.mark.parametrize("backend", ["directory", "s3"])
async def test_nothing_is_listed_without_workers_or_from_a_store_that_is_gone(backend: str) -> None:
    router = await router_with(backend=backend)
    with pytest.raises(Unavailable) as caught:
        await names(router)
    assert caught.value.code == "no_worker"
    owner = Owner(result(["a"]))
    router = await router_with(owner, backend=backend)
    owner.on_call = lambda: router.close(STORE_GONE, "the store is gone")
    with pytest.raises(Unavailable) as caught:
        await names(router)
    assert caught.value.code == STORE_GONE
