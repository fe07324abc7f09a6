"""A service process for tests that kill it: `python -m tests.bus.server URL SERVICE`.

Prints `ready` when it consumes its queue, and `slow N` when a call of `slow`, `once` or `patient` has begun. Those
never end, unless N is 0.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from shared.bus import amqp
from tests.bus.contract import Contract, Number


async def main(url: str, service: str) -> None:
    bus = await amqp.connect(url, "test-server")
    contract = Contract(service)

    async def slow(request: Number) -> Number:
        print(f"slow {request.n}", flush=True)
        if request.n:
            await asyncio.Event().wait()
        return request

    for method in (contract.slow, contract.once, contract.patient):
        await bus.serve(method, slow)
    await bus.start_consuming(service)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:3]))
