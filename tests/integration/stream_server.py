"""A worker process for ``test_stream``: answers reads, never finishes a write. Prints its port."""

from __future__ import annotations

import asyncio

import uvloop
from contract.links import ScriptedHandler, serving

from deltadatabase.model import Op, Result


async def main() -> None:
    handler = ScriptedHandler()
    handler.fast_script = lambda command: Result(etag=command.key) if command.op is Op.GET else None
    async with serving(handler) as (_, address):
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
