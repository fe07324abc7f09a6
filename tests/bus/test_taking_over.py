"""A queue that another process takes over: its consumer is evicted, and asks before it consumes anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from shared.bus import amqp
from shared.bus.endpoint import Endpoint
from shared.bus.interface import NotHere
from shared.bus.memory import MemoryBroker
from tests.bus.contract import Contract, Number

Connect = Callable[[str], Awaitable[Endpoint]]


@pytest.fixture(params=["memory", pytest.param("amqp", marks=pytest.mark.broker)])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    broker = MemoryBroker()
    url = request.getfixturevalue("broker_url") if request.param == "amqp" else ""
    async with AsyncExitStack() as closing:

        async def connected(name: str) -> Endpoint:
            bus = await (amqp.connect(url, name) if url else broker.connect(name))
            closing.push_async_callback(bus.close)
            return bus

        yield connected


def answering(number: int) -> Callable[[Number], Awaitable[Number]]:
    async def handler(_: Number) -> Number:
        return Number(n=number)

    return handler


async def test_who_was_evicted_takes_no_request_before_it_may(connect: Connect, contract: Contract) -> None:
    old, new, client = await connect("old"), await connect("new"), await connect("client")
    asked, allowed = asyncio.Event(), asyncio.Event()

    async def again() -> None:
        asked.set()
        await allowed.wait()

    await old.serve(contract.patient, answering(1))
    await old.start_consuming(contract.service, again=again)
    assert await client.call(contract.patient, Number(n=0)) == Number(n=1)
    await new.evict(contract.service)
    await asyncio.wait_for(asked.wait(), 30)
    waiting = asyncio.create_task(client.call(contract.patient, Number(n=0), timeout=10))
    await new.serve(contract.patient, answering(2))
    await new.start_consuming(contract.service)
    assert await waiting == Number(n=2)
    await new.stop_consuming(contract.service)
    allowed.set()
    assert await client.call(contract.patient, Number(n=0), timeout=10) == Number(n=1)


async def test_a_request_that_is_not_for_this_process_any_more_reaches_the_next(
    connect: Connect, contract: Contract
) -> None:
    old, new, client = await connect("old"), await connect("new"), await connect("client")
    came, over = asyncio.Event(), asyncio.Event()

    async def leaving(_: Number) -> Number:
        came.set()
        await over.wait()
        raise NotHere

    await old.serve(contract.patient, leaving)
    await old.start_consuming(contract.service)
    call = asyncio.create_task(client.call(contract.patient, Number(n=0), timeout=10))
    await asyncio.wait_for(came.wait(), 30)
    await old.stop_consuming(contract.service)
    over.set()
    await new.serve(contract.patient, answering(2))
    await new.start_consuming(contract.service)
    assert await call == Number(n=2)


async def test_a_queue_that_nobody_consumes_can_be_evicted(connect: Connect, contract: Contract) -> None:
    bus = await connect("new")
    await bus.evict(contract.service)
