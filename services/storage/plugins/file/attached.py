"""An SR on one host: its folder, the threads that work in it, and its locks."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import ParamSpec, TypeVar

from services.storage.plugins.errors import Failure, backend_failure, sr_full
from services.storage.plugins.file import lease, merging
from services.storage.plugins.file.folder import GUARD, Folder
from services.storage.plugins.file.lease import Busy, Guard, Lease
from services.storage.plugins.interface import ActivatedOnAnotherHost
from services.storage.settle import settle
from shared.errors import ApiError

log = logging.getLogger("storage.file")

_A = ParamSpec("_A")
_R = TypeVar("_R")

_POLL = 0.05
"""Seconds between two looks whether another host has stopped merging."""


class Attached:
    """`lock_timeout`: seconds to wait for another host that rearranges images."""

    def __init__(self, folder: Folder, workers: ThreadPoolExecutor, lock_timeout: float) -> None:
        self.folder, self._workers, self._lock_timeout = folder, workers, lock_timeout
        self.merges: list[asyncio.Task[None]] = []
        """Merges that this process does in the folder now, for whichever host."""

    async def run(self, work: Callable[_A, _R], *args: _A.args, **kwargs: _A.kwargs) -> _R:
        """Blocking work, in a worker thread and to its end; the system's errors become the catalogue's."""
        try:
            return await settle(self._in_thread(partial(work, *args, **kwargs)))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise sr_full(0, 0) from error
            await settle(self._in_thread(self.folder.check))
            if error.errno == errno.EROFS:
                text = f"cannot write to {self.folder.path}: {error.strerror}"
                raise backend_failure(Failure.NO_WRITE, text, error.strerror) from error
            raise backend_failure(Failure.IO, f"SR {self.folder.uuid}: {error}", error.strerror) from error

    async def _in_thread(self, work: Callable[[], _R]) -> _R:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    # -- locks -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def locked(self, key: str | None = None) -> AsyncIterator[None]:
        """The SR's guard, or that of one disk's leases. Raises SR_VDI_LOCKING_FAILED."""
        path = self.folder.path / GUARD if key is None else lease.guard_path(self.folder.path, key)
        async with self.holding(Guard, path):
            yield

    @asynccontextmanager
    async def holding(
        self, take: Callable[_A, Guard | None], *args: _A.args, **kwargs: _A.kwargs
    ) -> AsyncIterator[Guard | None]:
        """What it takes, given back at the end, also if the caller was cancelled while it was being taken. Waits for
        a guard that is taken. Raises SR_VDI_LOCKING_FAILED.
        """
        taken: list[Guard | None] = []

        def keep() -> None:
            taken.append(take(*args, **kwargs))

        try:
            await self.patiently(keep)
            yield taken[0]
        finally:
            for guard in taken:
                if guard is not None:
                    guard.close()

    @asynccontextmanager
    async def alone(self, *keys: str) -> AsyncIterator[None]:
        """Nobody rearranges images or activates these disks meanwhile, on any host."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.locked())
            guards = {lease.guard_path(self.folder.path, key): key for key in keys}
            for path in sorted(guards):
                await stack.enter_async_context(self.locked(guards[path]))
            yield

    async def patiently(self, work: Callable[_A, _R], *args: _A.args, **kwargs: _A.kwargs) -> _R:
        """Repeats work that finds a guard taken, as long as that may be."""
        end = time.monotonic() + self._lock_timeout
        delay = 0.002
        while True:
            try:
                return await self.run(work, *args, **kwargs)
            except Busy as busy:
                if time.monotonic() > end:
                    log.error("waited %s s for the lock %s in vain", self._lock_timeout, busy)
                    raise ApiError("SR_VDI_LOCKING_FAILED") from busy
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, 0.1)

    async def quiet(self, images: Collection[str], dp: str = "") -> None:
        """Returns when none of the images is being merged; a merge of them is made to stop.

        The caller keeps it from beginning again: by a lease, or by the SR's guard. `dp`: of this host, whose own
        hypervisor may go on merging. Raises SR_VDI_LOCKING_FAILED.
        """
        if not await self._merged(images, dp):
            return
        for task in list(self.merges):
            task.cancel()
        async with self.holding(merging.ask_to_stop, self.folder):
            end = time.monotonic() + self._lock_timeout
            while await self._merged(images, dp) and await self.run(merging.is_alive, self.folder):
                if time.monotonic() > end:
                    now = await self.run(merging.current, self.folder)
                    log.error("waited %s s in vain for a merge to stop: %s", self._lock_timeout, now)
                    raise ApiError("SR_VDI_LOCKING_FAILED")
                await asyncio.sleep(_POLL)

    async def _merged(self, images: Collection[str], dp: str) -> bool:
        now = await self.run(merging.current, self.folder)
        mine = dp and (now.host, now.dp) == (self.folder.host, dp)
        return not mine and not now.images.isdisjoint(images)

    # -- who has a disk activated ------------------------------------------------------------------------------------

    async def writer_here(self, key: str) -> Lease | None:
        """This host's, or None. Raises `ActivatedOnAnotherHost` for another's."""
        for holder, writes in await self.run(lease.others, self.folder.path, key):
            if writes:
                if holder.host != self.folder.host:
                    raise ActivatedOnAnotherHost(holder.host, holder.dp)
                return holder
        return None

    async def refuse_holders(self, *keys: str) -> None:
        """Raises `ActivatedOnAnotherHost` when anybody has one of the disks activated."""
        for key in keys:
            for holder, _ in await self.run(lease.others, self.folder.path, key):
                raise ActivatedOnAnotherHost(holder.host, holder.dp)
