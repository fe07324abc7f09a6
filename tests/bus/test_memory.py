"""What is easiest to show on the bus in memory: limits, and a broker that goes away."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus import events
from shared.bus.interface import DeadlineExceeded
from shared.bus.memory import MemoryBroker, topic_matches
from tests.bus.contract import Contract, Number
from tests.bus.wire import QUICK


async def add(request: Number) -> Number:
    return Number(n=request.n + 1)


async def test_without_a_broker_the_newest_events_are_kept(contract: Contract) -> None:
    broker = MemoryBroker()
    publisher, subscriber = await broker.connect("publisher"), await broker.connect("subscriber")
    got: list[int] = []
    done = asyncio.Event()

    def listen(payload: Number, _: str) -> None:
        got.append(payload.n)
        if payload.n == events.KEPT + 4:
            done.set()

    await subscriber.subscribe(contract.event, listen)
    broker.disconnect(publisher)
    for n in range(events.KEPT + 5):
        await publisher.publish(contract.event, Number(n=n), what="a", which="b")
    await done.wait()
    assert got == list(range(5, events.KEPT + 5))
    assert publisher.metrics()["events_dropped"] == 5
    await publisher.close()
    await subscriber.close()


async def test_calls_wait_for_the_broker_until_their_deadline(contract: Contract) -> None:
    broker = MemoryBroker()
    client, server = await broker.connect("client", QUICK), await broker.connect("server", QUICK)
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    broker.kill()
    with pytest.raises(DeadlineExceeded):
        await client.call(contract.add, Number(n=1), timeout=0.2)
    call = asyncio.create_task(client.call(contract.add, Number(n=1), timeout=5))
    broker.restart()
    assert await call == Number(n=2)
    await client.close()
    await server.close()


def matches(binding: list[str], key: list[str]) -> bool:
    """The rule as AMQP states it, without care for speed."""
    if not binding:
        return not key
    if binding[0] == "#":
        return any(matches(binding[1:], key[start:]) for start in range(len(key) + 1))
    return bool(key) and binding[0] in ("*", key[0]) and matches(binding[1:], key[1:])


words = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4)
patterns = st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=4)


@given(patterns, words)
def test_bindings_match_as_in_amqp(binding: list[str], key: list[str]) -> None:
    assert topic_matches(".".join(binding), ".".join(key)) == matches(binding, key)
