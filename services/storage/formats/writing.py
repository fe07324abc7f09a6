"""Writing disks while a stream of them is read: zeros are found, the disk's end is kept, a few writes run at once."""

from __future__ import annotations

import asyncio
from typing import Final, Self

from services.storage.formats.interface import Data, FormatError, Sink
from services.storage.formats.zeros import is_zero, runs

WRITE_BEHIND: Final = 4
"""Writes that are under way at once."""
GRAIN: Final = 64 << 10
"""The smallest run of zeros (aligned in its piece) that is not written as data."""


class Target:
    """A sink that a stream is decoded into. Leaving it as a context ends the writes under way; `finish` completes them.

    Where a write and an earlier one overlap, the later wins.
    """

    def __init__(self, sink: Sink, form: str) -> None:
        """`form`: the stream's format, for messages."""
        self.size = sink.size
        self.written = 0
        self._sink = sink
        self._form = form
        self._pending: dict[asyncio.Task[None], tuple[int, int]] = {}

    async def write(self, offset: int, data: Data) -> None:
        """Raises `FormatError` for data behind the disk's end; zeros there are dropped."""
        if offset + len(data) > self.size:
            inside = max(0, self.size - offset)
            if not is_zero(memoryview(data)[inside:]):
                end = offset + len(data)
                raise FormatError(f"{self._form}: data up to {end}, but the disk has {self.size} bytes")
            data = memoryview(data)[:inside]
        view = memoryview(data)  # whose parts are no copies
        for begin, end, zero in runs(data, GRAIN):
            if zero:
                await self.zero(offset + begin, end - begin)
            else:
                part = data if end - begin == len(data) else view[begin:end]
                await self._make_room(offset + begin, offset + end)
                self._start(asyncio.create_task(self._sink.write(offset + begin, part)), offset + begin, end - begin)
                self.written += end - begin

    async def zero(self, offset: int, length: int) -> None:
        """Any length; what is behind the disk's end is dropped."""
        length = min(length, self.size - offset)
        if length > 0:
            await self._make_room(offset, offset + length)
            self._start(asyncio.create_task(self._sink.zero(offset, length)), offset, length)

    async def finish(self) -> None:
        """All is written and durable."""
        await self._drain()
        await self._sink.flush()

    def _start(self, task: asyncio.Task[None], offset: int, length: int) -> None:
        self._pending[task] = (offset, offset + length)

    async def _make_room(self, begin: int, end: int) -> None:
        if any(begin < other_end and other < end for other, other_end in self._pending.values()):
            await self._drain()
        while len(self._pending) >= WRITE_BEHIND:
            self._collect((await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED))[0])

    async def _drain(self) -> None:
        while self._pending:
            self._collect((await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED))[0])

    def _collect(self, done: set[asyncio.Task[None]]) -> None:
        """Of several failures one is raised, and none is left for the log."""
        for task in done:
            del self._pending[task]
        failures = [failure for task in done if (failure := task.exception()) is not None]
        if failures:
            raise failures[0]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._pending)
        self._pending.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
