"""Disks of other hosts, within reach of this one: what copies and mirrors write to."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from services.storage.motion.receptions import Place
from services.storage.nbd.doors import Door, entered
from services.storage.plugins.errors import in_use
from services.storage.settle import Result, settle
from shared.bus.context import CallContext, current
from shared.bus.interface import Bus
from shared.contracts import motion
from shared.contracts.storage import SR_STAT, Backend, SrRef, SrStat
from shared.errors import ApiError

log = logging.getLogger("storage.motion")


@dataclass(frozen=True, slots=True)
class Far:
    """A disk in an SR of the host `host` (uuid). `dp`: as that host names its datapath."""

    dp: str
    host: str
    sr: str
    location: str


@dataclass
class Reached:
    """`backend`: the far disk as a program of this host opens it, of format `none` for a simulated one. `size`: bytes.
    `keep`: see `ReceiveEnd`; asked when it is let go of.
    """

    backend: Backend
    size: int
    keep: str = ""


class FarSpace:
    """How full SRs of another host are."""

    def __init__(self, bus: Bus, host: str) -> None:
        self._bus, self._host = bus, host

    async def stat(self, sr: str) -> SrStat:
        return await self._bus.call(SR_STAT, SrRef(sr=sr), host=self._host)


class Sending:
    """From one host."""

    def __init__(self, bus: Bus, place: Place) -> None:
        self._bus, self._place = bus, place
        self._reached: set[Far] = set()

    def space(self, host: str) -> FarSpace:
        return FarSpace(self._bus, host)

    @asynccontextmanager
    async def reached(self, far: Far) -> AsyncIterator[Reached]:
        """The disk is open there meanwhile, for this host alone. Raises ApiError: what opening it raises there.

        What was written and flushed is on it. When nothing fails here, it is closed there afterwards, or kept; else
        that host closes it as soon as it can. VDI_IN_USE if somebody here writes to it already.
        """
        if far in self._reached:
            raise in_use(far.location, "attach")
        self._reached.add(far)
        try:
            async with self._open(far) as found:
                yield found
        finally:
            self._reached.discard(far)

    @asynccontextmanager
    async def _open(self, far: Far) -> AsyncIterator[Reached]:
        shown = self._place.identity.shown()
        wanted = motion.Receive(
            dp=far.dp,
            sr=far.sr,
            location=far.location,
            source=self._place.identity.host,
            certificate=shown.certificate,
        )
        try:
            there = await self._bus.call(motion.RECEIVE, wanted, host=far.host)
            if not there.address:
                found = Reached(Backend(dp=far.dp, kind="file", path="", format="none", writable=True), there.size)
                yield found
                await self._end(far, found.keep)
                return
            door = Door(there.address, there.port, there.export, there.certificate, there.name)
            async with entered(door, self._place.folder, self._place.identity, self._place.programs) as server:
                await self._bus.call(motion.RECEIVE_HELD, motion.Reception(dp=far.dp), host=far.host)
                backend = Backend(dp=far.dp, kind="nbd", path=str(server.address), format="raw", writable=True)
                found = Reached(backend, there.size)
                yield found
                await self._end(far, found.keep)
        except BaseException:
            await settle(self._abandon(far))
            raise

    async def _end(self, far: Far, keep: str) -> None:
        await for_nobody(self._bus.call(motion.RECEIVE_END, motion.ReceiveEnd(dp=far.dp, keep=keep), host=far.host))

    async def _abandon(self, far: Far) -> None:
        """That host notices by itself that nobody is there, and closes the disk when it starts again."""
        try:
            await self._end(far, "")
        except (ApiError, OSError) as error:
            log.warning("host %s is not told that nobody writes to %s any more: %s", far.host, far.dp, error)


async def for_nobody(work: Coroutine[Any, Any, Result]) -> Result:
    """Whoever cancels the call's task, or waits for it no longer, does not stop it."""

    async def alone() -> Result:
        context = current.get()
        origin = context.task or context.origin
        current.set(
            CallContext(origin=origin, term=context.term, traceparent=context.traceparent, observed=context.observed)
        )
        return await work

    return await settle(alone())
