"""Workers for transfers: one waits already, where transfers come one after another.

A worker takes a fifth of a second to start, which is more than all else that a small transfer takes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from services.storage.transfer.process import Worker

log = logging.getLogger("storage.transfer")

KEPT: Final = 60.0
"""Seconds that a worker waits for a transfer; its memory (some 30 MiB) is free again if none comes."""


class Reserve:
    """One for all hosts of a process. `waiting`: the worker that waits, if one does."""

    def __init__(self, kept: float = KEPT) -> None:
        """`kept`: seconds."""
        self._kept = kept
        self._wanted, self._closed = asyncio.Event(), False
        self.waiting: Worker | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def take(self) -> Worker:
        """It waits for its job. Raises OSError."""
        worker, self.waiting = self.waiting, None
        if worker is not None and not worker.ended.done():
            return worker
        return await Worker.start()

    def fill(self) -> None:
        """A transfer has ended: another may follow."""
        self._wanted.set()
        if self._keeping is None and not self._closed:
            self._keeping = asyncio.create_task(self._keep(), name="a worker in reserve")

    async def close(self) -> None:
        self._closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})

    async def _keep(self) -> None:
        try:
            while await self._wanted.wait():
                try:
                    await self._stock()
                except TimeoutError:
                    await self._dismiss()
                except OSError as error:
                    log.warning("no worker can be kept for the next transfer: %s", error)
        finally:
            await self._dismiss()

    async def _stock(self) -> None:
        """One at a time. Raises TimeoutError when no transfer has ended for long, and OSError."""
        while True:
            self._wanted.clear()
            if self.waiting is None or self.waiting.ended.done():
                self.waiting = await Worker.start()
            async with asyncio.timeout(self._kept):
                await self._wanted.wait()

    async def _dismiss(self) -> None:
        worker, self.waiting = self.waiting, None
        if worker is not None:
            worker.kill()
            await asyncio.wait({worker.ended})
