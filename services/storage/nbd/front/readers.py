"""Who reads disks of a host by NBD, told to the API, which shows it as VBDs of the host's control domain.

All of them are told whenever one has gone, and at the beginning: so what a killed service has left goes as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Final

from shared.bus.interface import Bus
from shared.contracts.nbd import NBD_READING, Reading
from shared.errors import ApiError

log = logging.getLogger("storage.nbd")

AGAIN: Final = 3.0
"""Seconds until the API is told again what it has not heard."""
ONCE_MORE: Final = 10.0
"""Seconds after which it is said once more."""
LAST_WORD: Final = 2.0
"""Seconds that the API gets to hear that nobody reads any more, when the service stops."""

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
"""Starts background work by its name; if that fails, whoever does this ends the service."""


class Readers:
    """`host`: uuid."""

    def __init__(self, host: str, bus: Bus) -> None:
        self._host, self._bus = host, bus
        self._now: set[str] = set()
        self._changed = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    def begin(self, spawn: Spawn) -> None:
        """Tells, until `close`."""
        self._changed.set()
        self._telling = spawn(self._tell(), f"say who reads disks of {self._host} by NBD")

    async def close(self) -> None:
        """When nobody reads any more. If the API does not hear it, the next service says so."""
        if self._telling is None:
            return
        self._telling.cancel()
        await asyncio.wait({self._telling})
        if self._changed.is_set():
            try:
                async with asyncio.timeout(LAST_WORD):
                    await self._say()
            except (ApiError, TimeoutError) as error:
                log.warning("the API has not heard that nobody reads disks by NBD any more: %s", error or "no answer")

    def comes(self) -> str:
        """A name for a client that is about to read. The API is not told: it is asked for the disk by that name."""
        name = secrets.token_hex(8)
        self._now.add(name)
        return name

    def goes(self, name: str) -> None:
        self._now.discard(name)
        self._changed.set()

    async def _tell(self) -> None:
        """Twice: who goes while it is asking for its disk may get a VBD after it was told that it is gone."""
        while True:
            await self._changed.wait()
            await self._until_heard()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ONCE_MORE):
                    await self._changed.wait()
            await self._until_heard()

    async def _until_heard(self) -> None:
        while True:
            try:
                return await self._say()
            except ApiError as error:
                log.warning("the API does not hear who reads disks by NBD: %s", error)
                await asyncio.sleep(AGAIN)

    async def _say(self) -> None:
        self._changed.clear()
        try:
            await self._bus.call(NBD_READING, Reading(connections=sorted(self._now)), host=self._host)
        except BaseException:
            self._changed.set()
            raise
