from __future__ import annotations

import asyncio
import time

from services.api.rate_limit.limiter import Limiter

FAST = 100.0
"""Tokens a second: a test waits for a few of them."""


async def test_calls_go_on_in_the_order_in_which_they_came() -> None:
    limiter = Limiter(burst=1, fill=FAST)
    assert limiter.turn(1) is None
    order: list[int] = []

    async def call(number: int, cost: float) -> None:
        turn = limiter.turn(cost)
        assert turn is not None
        await turn
        order.append(number)

    begin = time.monotonic()
    await asyncio.gather(call(0, 1), call(1, 0.1), call(2, 1))
    assert order == [0, 1, 2]
    assert time.monotonic() - begin >= 1.9 / FAST


async def test_who_gives_up_costs_nothing_and_holds_nobody_up() -> None:
    limiter = Limiter(burst=1, fill=FAST)
    assert limiter.turn(1) is None
    expensive, cheap = limiter.turn(1e6), limiter.turn(1)
    assert expensive is not None
    assert cheap is not None
    expensive.cancel()
    async with asyncio.timeout(5):
        await cheap
    assert limiter.waiting == 0


async def test_a_new_limit_counts_for_those_who_wait() -> None:
    limiter = Limiter(burst=1, fill=0.001)
    assert limiter.turn(1) is None
    turn = limiter.turn(1)
    assert turn is not None
    limiter.reshape(burst=5, fill=0.001)
    assert turn.done()
    assert [limiter.turn(1) for _ in range(4)] == [None] * 4


async def test_without_a_limit_nobody_waits() -> None:
    limiter = Limiter(burst=1, fill=0.001)
    turns = [limiter.turn(1) for _ in range(3)]
    limiter.end()
    assert all(turn is None or turn.done() for turn in turns)
