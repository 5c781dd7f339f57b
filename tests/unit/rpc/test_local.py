from __future__ import annotations

import asyncio

import pytest
from contract.links import ScriptedHandler

from deltadatabase import limits
from deltadatabase.errors import Overloaded
from deltadatabase.model import Command, Op
from deltadatabase.rpc.local import LocalLink


async def test_bytes_in_flight_are_bounded() -> None:
    handler = ScriptedHandler()
    link = LocalLink(handler)
    document = bytes(limits.STREAM_IN_FLIGHT_BYTES_MAX // 4)
    command = Command(op=Op.VALIDATE, document=document)
    tasks = [asyncio.create_task(link.call(command)) for _ in range(4)]
    await handler.until(lambda: len(handler.started) == 4)
    with pytest.raises(Overloaded):
        await link.call(Command(op=Op.VALIDATE, document=b"{}"))
    handler.release.set()
    await asyncio.gather(*tasks)
    await link.call(command)
    await link.close()
