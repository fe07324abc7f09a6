"""Guards of an SR's images: given back in every case, since who waits for one waits for all hosts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from services.storage.plugins.file import lease, merging
from services.storage.plugins.file.attached import Attached
from services.storage.plugins.file.folder import GUARD, Folder
from services.storage.plugins.file.lease import Guard
from shared.errors import ApiError
from tests.storage.support import HOST_A, SR

Holding = Callable[[Attached], AbstractAsyncContextManager[Any]]

HELD: dict[str, tuple[Holding, str]] = {
    "the SR's": (lambda sr: sr.locked(), GUARD),
    "a disk's": (lambda sr: sr.locked("disk"), str(lease.guard_path(Path(), "disk"))),
    "both": (lambda sr: sr.alone("disk"), str(lease.guard_path(Path(), "disk"))),
    "the right to merge": (lambda sr: sr.holding(merging.claim, sr.folder), f"{lease.FOLDER}/coalesce"),
}


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as workers:
        yield workers


@pytest.fixture
def sr(tmp_path: Path, workers: ThreadPoolExecutor) -> Attached:
    (tmp_path / lease.FOLDER).mkdir()
    return Attached(Folder(tmp_path, SR, HOST_A), workers, lock_timeout=0.2)


@pytest.mark.parametrize("what", HELD)
async def test_a_guard_that_is_had_when_nobody_wants_it_any_more_is_given_back(
    sr: Attached, workers: ThreadPoolExecutor, what: str
) -> None:
    holding, name = HELD[what]

    async def hold() -> None:
        async with holding(sr):
            pytest.fail("it was cancelled before")

    gate = threading.Event()
    passing = asyncio.get_running_loop().run_in_executor(workers, gate.wait)
    task = asyncio.create_task(hold())
    await asyncio.sleep(0.01)
    task.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await passing
    Guard(sr.folder.path / name).close()


@pytest.mark.parametrize("what", HELD)
async def test_a_guard_is_given_back_after_work_that_fails(sr: Attached, what: str) -> None:
    holding, name = HELD[what]

    async def fail() -> None:
        async with holding(sr):
            with pytest.raises(lease.Busy):
                Guard(sr.folder.path / name)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    Guard(sr.folder.path / name).close()


async def test_who_waits_for_a_guard_in_vain_is_told(sr: Attached) -> None:
    async with sr.locked():
        with pytest.raises(ApiError, match="SR_VDI_LOCKING_FAILED"):
            async with sr.locked():
                pytest.fail("two have it")


async def test_who_stops_waiting_for_a_merge_asks_no_more_that_it_stops(sr: Attached) -> None:
    claimed = merging.claim(sr.folder)
    assert claimed is not None
    merging.begin(sr.folder, merging.Merging(host="other", top="a", base="b"))
    waiting = asyncio.create_task(sr.quiet(["a"]))
    async with asyncio.timeout(10):
        while not merging.is_asked_to_stop(sr.folder):  # noqa: ASYNC110
            await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not merging.is_asked_to_stop(sr.folder)
    claimed.close()
