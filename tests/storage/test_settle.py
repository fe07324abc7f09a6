"""Work that is not left half-way by who cancels it."""

from __future__ import annotations

import asyncio

import pytest

from services.storage.settle import settle, settle_or_undo
from shared.errors import ApiError


class Work:
    """Ends when it may, and remembers what was done."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.done: list[str] = []

    async def __call__(self) -> str:
        await self.may_end.wait()
        self.done.append("done")
        return "result"

    async def failing(self) -> str:
        await self()
        raise OSError

    async def undo(self, result: str) -> None:
        await asyncio.sleep(0)
        self.done.append(f"undone: {result}")


async def cancelled(task: asyncio.Task[str], work: Work, times: int = 1) -> None:
    for _ in range(times):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("times", [1, 3])
async def test_work_goes_on_to_its_end_when_its_caller_is_cancelled(times: int) -> None:
    work = Work()
    await cancelled(asyncio.create_task(settle(work())), work, times)
    assert work.done == ["done"]


async def test_what_nobody_heard_of_is_undone() -> None:
    work = Work()
    await cancelled(asyncio.create_task(settle_or_undo(work(), work.undo)), work)
    assert work.done == ["done", "undone: result"]


async def test_what_came_to_nothing_is_not_undone() -> None:
    work = Work()
    await cancelled(asyncio.create_task(settle_or_undo(work.failing(), work.undo)), work)
    assert work.done == ["done"]


async def test_what_cannot_be_undone_is_told_and_the_caller_is_cancelled_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()

    async def fail(_: str) -> None:
        raise ApiError("SR_BACKEND_FAILURE_53", "", "busy", "")

    await cancelled(asyncio.create_task(settle_or_undo(work(), fail)), work)
    assert "SR_BACKEND_FAILURE_53" in caplog.text


async def test_what_its_caller_has_is_kept() -> None:
    work = Work()
    work.may_end.set()
    assert await settle_or_undo(work(), work.undo) == "result"
    assert work.done == ["done"]
