"""Who decides about the same thing takes turns."""

from __future__ import annotations

import asyncio

from shared.turns import Turns


async def test_the_same_key_is_held_by_one_at_a_time_in_order() -> None:
    turns, running, order = Turns(), 0, []

    async def work(number: int) -> None:
        nonlocal running
        async with turns.of("a"):
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            order.append(number)
            running -= 1

    await asyncio.gather(*(work(number) for number in range(20)))
    assert order == list(range(20))
    assert len(turns) == 0


async def test_other_keys_do_not_wait() -> None:
    turns = Turns()
    async with turns.of("a"), turns.of("b"):
        assert len(turns) == 2


async def test_one_that_gives_up_waiting_lets_the_next_have_its_turn() -> None:
    turns = Turns()

    async def take() -> None:
        async with turns.of("a"):
            return

    async with turns.of("a"):
        impatient, patient = asyncio.create_task(take()), asyncio.create_task(take())
        await asyncio.sleep(0)
        impatient.cancel()
    await patient
    assert impatient.cancelled()
    assert len(turns) == 0
