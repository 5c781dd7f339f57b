import asyncio
from collections.abc import Sequence

import pytest

from deltadatabase.deadlines import Deadlines
from deltadatabase.errors import Invalid, Overloaded, RequestTimeout, TooLarge
from deltadatabase.gateway.asgi import Message, Receive
from deltadatabase.gateway.body import Body, HeldBodies
from deltadatabase.limits import API_BODY_BYTES_MAX, MIB, REFUSED_BODY_DRAIN_BYTES_MAX


class Sender:
    """The client's side: chunks, then silence or the end."""

    def __init__(self, chunks: Sequence[bytes], *, then: str = "end") -> None:
        self._left = list(chunks)
        self._then = then
        self.asked = 0

    async def receive(self) -> Message:
        self.asked += 1
        if self._left:
            chunk = self._left.pop(0)
            return {
                "type": "http.request",
                "body": chunk,
                "more_body": bool(self._left) or self._then != "end",
            }
        if self._then == "disconnect":
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError


def body(
    receive: Receive,
    declared: int | None = None,
    *,
    waits: bool = False,
    timeout_s: float = 5,
    held: HeldBodies | None = None,
    source: str = "",
) -> Body:
    return Body(
        receive,
        declared,
        waits=waits,
        timeout_s=timeout_s,
        held=held or HeldBodies(),
        deadlines=Deadlines(),
        source=source,
    )


@pytest.mark.parametrize("chunks", [[b""], [b"abcd"], [b"ab", b"", b"cd"], [b"a", b"b", b"c", b"d"]])
async def test_the_chunks_are_put_together(chunks: list[bytes]) -> None:
    subject = body(Sender(chunks).receive)
    assert await subject.read(4) == b"".join(chunks)
    assert await subject.drop(), "nothing is left over"


@pytest.mark.parametrize("chunks", [[b"abcd"], [b"ab", b"", b"cd"]])
async def test_a_body_of_a_declared_length_is_complete_without_being_told_so(chunks: list[bytes]) -> None:
    sender = Sender(chunks, then="silence")
    subject = body(sender.receive, 4)
    assert await asyncio.wait_for(subject.read(4), 1) == b"abcd"
    assert await subject.drop()
    assert sender.asked == len(chunks)


@pytest.mark.parametrize("chunks", [[b"abcde"], [b"abc", b"de"], [b"abcde", b"f"]])
async def test_more_than_the_limit_is_refused_and_dropped(chunks: list[bytes]) -> None:
    subject = body(Sender(chunks).receive)
    with pytest.raises(TooLarge):
        await subject.read(4)
    assert await subject.drop()


async def test_a_declared_length_above_the_limit_is_refused_before_anything_is_received() -> None:
    sender = Sender([b"abcde"])
    subject = body(sender.receive, 5)
    with pytest.raises(TooLarge):
        await subject.read(4)
    assert sender.asked == 0
    assert await subject.drop()


async def test_dropping_has_an_end() -> None:
    sender = Sender([bytes(MIB)] * 20)
    assert not await body(sender.receive).drop()
    assert sender.asked == REFUSED_BODY_DRAIN_BYTES_MAX // MIB


async def test_a_client_that_waits_for_continue_is_not_asked_to_send_what_is_refused() -> None:
    sender = Sender([b"abcde"])
    subject = body(sender.receive, 5, waits=True)
    with pytest.raises(TooLarge):
        await subject.read(4)
    assert not await subject.drop()
    assert sender.asked == 0


async def test_a_stalled_body_ends_in_time_and_is_not_waited_for_again() -> None:
    subject = body(Sender([b"ab"], then="silence").receive, 4, timeout_s=0.001)
    with pytest.raises(RequestTimeout):
        await subject.read(4)
    assert not await asyncio.wait_for(subject.drop(), 0.1)


async def test_a_client_that_leaves_gives_no_body() -> None:
    subject = body(Sender([b"ab"], then="disconnect").receive, 4)
    with pytest.raises(Invalid) as caught:
        await subject.read(4)
    assert caught.value.code == "incomplete_body"
    assert not await subject.drop()


async def test_a_client_that_leaves_while_its_body_is_dropped_is_no_error() -> None:
    assert not await body(Sender([b"ab"], then="disconnect").receive).drop()


# What all bodies together hold


async def stalled(held: HeldBodies, size: int, limit: int, source: str) -> Body:
    """A body of which this much has come, and no more comes."""
    subject = body(Sender([b"x" * size], then="silence").receive, held=held, source=source, timeout_s=0.01)
    with pytest.raises(RequestTimeout):
        await subject.read(limit)
    return subject


async def test_documents_that_stall_are_bounded_together() -> None:
    held = HeldBodies(documents_bytes_max=1000)
    stalling = [await stalled(held, 250, MIB, str(number)) for number in range(4)]
    with pytest.raises(Overloaded):
        await body(Sender([b"x"]).receive, held=held).read(MIB)
    # Small bodies have room of their own.
    assert await body(Sender([b"x"]).receive, held=held).read(API_BODY_BYTES_MAX) == b"x"
    await stalling.pop().drop()
    assert await body(Sender([b"x"]).receive, held=held).read(MIB) == b"x"


async def test_one_source_of_small_bodies_leaves_room_for_the_others() -> None:
    held = HeldBodies(small_bytes_max=1000, of_one_bytes_max=250)
    stalling = [await stalled(held, 100, API_BODY_BYTES_MAX, "attacker") for _ in range(2)]
    with pytest.raises(Overloaded):
        await body(Sender([b"x" * 100]).receive, held=held, source="attacker").read(API_BODY_BYTES_MAX)
    other = body(Sender([b"x" * 100]).receive, held=held, source="other")
    assert await other.read(API_BODY_BYTES_MAX) == b"x" * 100
    assert len(stalling) == 2


@pytest.mark.parametrize("limit", [API_BODY_BYTES_MAX, MIB])
@pytest.mark.parametrize("end", ["answered", "forgotten", "refused"])
async def test_nothing_is_counted_once_a_body_is_gone(limit: int, end: str) -> None:
    held = HeldBodies(documents_bytes_max=1000, small_bytes_max=1000, of_one_bytes_max=1000)
    for _ in range(20):
        if end == "refused":
            with pytest.raises(Overloaded):
                await body(Sender([b"x" * 500, b"x" * 501]).receive, held=held).read(limit)
        else:
            subject = body(Sender([b"x" * 500, b"x" * 500]).receive, held=held)
            assert len(await subject.read(limit)) == 1000
            assert held.documents_bytes + held.small_bytes == 1000
            if end == "answered":
                await subject.drop()
            del subject
        assert held.documents_bytes + held.small_bytes == 0
    assert not vars(held)["_of_one"]
