"""How long a primary may answer without hearing that it is one."""

from __future__ import annotations

import asyncio

import pytest

from services.db.standby.lease import LEASE, Lease, Lost


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_it_counts_from_when_the_question_was_sent() -> None:
    clock = Clock()
    lease = Lease(clock)
    assert not lease.valid
    sent = clock.now
    clock.now += LEASE / 2
    lease.renew(sent)
    assert lease.valid
    clock.now = sent + LEASE
    assert not lease.valid


async def test_answers_wait_until_it_is_renewed() -> None:
    clock = Clock()
    lease = Lease(clock)
    waiting = asyncio.create_task(lease.held())
    await asyncio.sleep(0)
    assert not waiting.done()
    lease.renew(clock.now - 2 * LEASE)
    await asyncio.sleep(0)
    assert not waiting.done(), "an answer that came late says nothing of now"
    lease.renew(clock.now)
    await asyncio.wait_for(waiting, 1)


async def test_who_waits_hears_that_it_is_over() -> None:
    lease = Lease(Clock())
    waiting = asyncio.create_task(lease.held())
    await asyncio.sleep(0)
    lease.end()
    with pytest.raises(Lost):
        await waiting
    lease.renew(Clock.now)
    assert not lease.valid
