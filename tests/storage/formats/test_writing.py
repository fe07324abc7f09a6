"""Writes that run at once: how they fail."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from services.storage.formats.interface import PIECE, Data, Sink
from services.storage.formats.writing import WRITE_BEHIND, Target


class Full(Sink):
    """All writes that are under way fail in the same turn of the event loop."""

    def __init__(self) -> None:
        self.tried = 0
        self._noticed = asyncio.Event()

    @property
    def size(self) -> int:
        return 64 * PIECE

    async def write(self, offset: int, data: Data) -> None:
        self.tried += 1
        if self.tried == WRITE_BEHIND:
            self._noticed.set()
        await self._noticed.wait()
        raise OSError("no space left")

    async def zero(self, offset: int, length: int) -> None:
        raise NotImplementedError

    async def flush(self) -> None:
        raise NotImplementedError


async def test_of_writes_that_fail_together_one_is_raised_and_the_log_hears_of_none() -> None:
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    sink = Full()
    with pytest.raises(OSError, match="no space left"):
        await stream_into(sink)
    assert sink.tried == WRITE_BEHIND
    gc.collect()
    assert heard == []


async def stream_into(sink: Sink) -> None:
    async with Target(sink, "raw") as target:
        for at in range(2 * WRITE_BEHIND):
            await target.write(at * PIECE, b"x" * PIECE)
