from __future__ import annotations

import asyncio

import pytest

from services.storage.locks import Locks


async def test_one_disk_is_worked_on_by_one_at_a_time() -> None:
    locks, log = Locks(), []

    async def work(name: str) -> None:
        async with locks.disks([("sr", "disk")]):
            log.append(name)
            await asyncio.sleep(0)
            log.append(name)

    await asyncio.gather(work("a"), work("b"), work("c"))
    assert log == ["a", "a", "b", "b", "c", "c"]


async def test_disks_of_one_sr_are_worked_on_at_the_same_time() -> None:
    locks, inside = Locks(), asyncio.Barrier(2)

    async def work(disk: str) -> None:
        async with locks.disks([("sr", disk)]):
            await asyncio.wait_for(inside.wait(), 5)

    await asyncio.gather(work("a"), work("b"))


async def test_detaching_an_sr_waits_for_its_disks_and_holds_back_later_ones() -> None:
    locks, log = Locks(), []
    started, go = asyncio.Event(), asyncio.Event()

    async def disk(name: str) -> None:
        async with locks.disks([("sr", name)]):
            log.append(name)
            started.set()
            await go.wait()

    async def detach() -> None:
        async with locks.sr("sr"):
            log.append("detach")

    first = asyncio.create_task(disk("first"))
    await started.wait()
    waiting = asyncio.create_task(detach())
    await asyncio.sleep(0)
    later = asyncio.create_task(disk("later"))
    await asyncio.sleep(0)
    assert log == ["first"]
    go.set()
    await asyncio.gather(first, waiting, later)
    assert log == ["first", "detach", "later"]


async def test_sets_of_disks_taken_in_any_order_do_not_deadlock() -> None:
    locks = Locks()
    one, other = [("sr", "a"), ("sr", "b")], [("sr", "b"), ("sr", "a")]

    async def work(disks: list[tuple[str, str]]) -> None:
        for _ in range(50):
            async with locks.disks(disks):
                await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(work(one), work(other)), 10)


async def test_whoever_gives_up_waiting_does_not_block_the_next() -> None:
    locks = Locks()
    async with locks.sr("sr"):
        waiting = asyncio.create_task(_hold(locks))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await asyncio.wait_for(_hold(locks), 5)


async def _hold(locks: Locks) -> None:
    async with locks.sr("sr"):
        await asyncio.sleep(0)
