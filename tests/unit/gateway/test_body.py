import asyncio
from collections.abc import Sequence

import pytest

from deltadatabase.errors import Invalid, RequestTimeout, TooLarge
from deltadatabase.gateway.asgi import Message, Receive
from deltadatabase.gateway.body import Body
from deltadatabase.limits import MIB, REFUSED_BODY_DRAIN_BYTES_MAX


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


def body(receive: Receive, declared: int | None = None, *, waits: bool = False, timeout_s: float = 5) -> Body:
    return Body(receive, declared, waits=waits, timeout_s=timeout_s)


@pytest.mark.parametrize("chunks", [[b""], [b"abcd"], [b"ab", b"", b"cd"], [b"a", b"b", b"c", b"d"]])
async def test_the_chunks_are_put_together(chunks: list[bytes]) -> None:
    subject = body(Sender(chunks).receive)
    assert await subject.read(4) == b"".join(chunks)
    assert await subject.drop(), "nothing is left over"


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
