"""A worker that waits for the next transfer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psutil
import pytest

from services.storage.transfer.job import Disk, Ended, Job, Ready
from services.storage.transfer.process import Worker
from services.storage.transfer.reserve import Reserve

JOB = Job("checksum", Disk("", 1 << 20))


@pytest.fixture
async def reserve() -> AsyncIterator[Reserve]:
    reserve = Reserve()
    yield reserve
    await reserve.close()


async def filled(reserve: Reserve) -> Worker:
    """The one that waits."""
    reserve.fill()
    async with asyncio.timeout(30):
        while reserve.waiting is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return reserve.waiting


async def end(worker: Worker) -> None:
    worker.kill()
    await worker.ended


async def test_after_a_transfer_the_next_ones_worker_is_there_and_does_it(reserve: Reserve) -> None:
    waiting = await filled(reserve)
    worker = await reserve.take()
    assert worker is waiting
    worker.begin(JOB)
    assert await worker.ready == Ready()
    assert isinstance(await worker.ended, Ended)


async def test_nobody_waits_before_the_first_transfer_has_ended(reserve: Reserve) -> None:
    worker = await reserve.take()
    assert reserve.waiting is None
    await end(worker)


async def test_two_transfers_have_two_workers(reserve: Reserve) -> None:
    await filled(reserve)
    one, two = await asyncio.gather(reserve.take(), reserve.take())
    assert one.pid != two.pid
    await asyncio.gather(end(one), end(two))


async def test_one_that_was_killed_meanwhile_is_not_taken(reserve: Reserve) -> None:
    waiting = await filled(reserve)
    await end(waiting)
    worker = await reserve.take()
    assert worker is not waiting
    worker.begin(JOB)
    assert isinstance(await worker.ended, Ended)


async def test_it_does_not_wait_for_ever_and_another_comes_after_the_next_transfer() -> None:
    reserve = Reserve(kept=0.1)
    waiting = await filled(reserve)
    await waiting.ended
    assert not psutil.pid_exists(waiting.pid)
    again = await filled(reserve)
    assert again.pid != waiting.pid
    await reserve.close()


async def test_nothing_is_left_of_a_closed_one_and_nothing_comes_after_it() -> None:
    reserve = Reserve()
    waiting = await filled(reserve)
    await reserve.close()
    assert not psutil.pid_exists(waiting.pid)
    reserve.fill()
    await asyncio.sleep(0)
    assert reserve.waiting is None
