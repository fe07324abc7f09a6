"""Disks of VMs on this host that are mirrored to other hosts.

The hypervisor mirrors, into a program of this service that passes everything on; so a mirror ends with the service, and
the VM goes on without. What it leaves in the hypervisor is cleared away by the next process, which finds in the journal
what there was.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from services.storage.journal import Journal
from services.storage.motion.sending import Far, Reached, Sending, for_nobody
from services.storage.settle import settle
from shared.bus.interface import Bus
from shared.contracts import vm_disks
from shared.contracts.motion import Mirror, MirrorEnd
from shared.contracts.vm_disks import DiskId, DiskMirror, DiskMirrorEnd, MirrorState
from shared.errors import ApiError, internal_error
from shared.turns import Turns

log = logging.getLogger("storage.motion")

AGAIN: Final = 2.0
"""Seconds until what has failed is tried again."""
_GONE: Final = frozenset({"DEVICE_NOT_ATTACHED", "VM_BAD_POWER_STATE"})
"""What it is called when the VM has the disk, or lives, no more."""


@dataclass(frozen=True, slots=True)
class _Running:
    request: Mirror
    far: Reached
    holds: AsyncExitStack


class Mirrors:
    """Those of one host (uuid), by the datapath of their target."""

    def __init__(self, host: str, bus: Bus, journal: Journal, sending: Sending) -> None:
        self._host, self._bus, self._journal, self._sending = host, bus, journal, sending
        self._prefix = f"mirror/{host}/"
        self._running: dict[str, _Running] = {}
        self._turns = Turns()
        self._starting: set[str] = set()
        self._more_left = asyncio.Event()

    async def start(self, request: Mirror) -> None:
        """Asked again, it joins the one that there is. Cancelled or failed: there is none."""
        async with self._turns.of(request.dp):
            there = self._running.get(request.dp)
            if there is not None and there.request == request:
                return
            if there is not None:
                raise internal_error(f"there is another mirror to {request.dp}")
            for former in self._left():
                if former.disk == request.disk:
                    await self._clear(former)
            holds = AsyncExitStack()
            self._starting.add(request.dp)
            try:
                await self._journal.write({self._prefix + request.dp: msgspec.to_builtins(request)})
                reached = self._sending.reached(Far(request.dp, request.to_host, request.sr, request.location))
                far = await holds.enter_async_context(reached)
                wanted = DiskMirror(dp=request.disk, target=far.backend, shallow=request.shallow)
                await self._bus.call(vm_disks.DISK_MIRROR, wanted, host=self._host)
            except BaseException as error:
                await for_nobody(self._undo(request, holds, error))
                raise
            finally:
                self._starting.discard(request.dp)
                self._more_left.set()  # only now is what a failed start has left nobody's
            self._running[request.dp] = _Running(request, far, holds)
            log.info("%s is mirrored to %s on host %s", request.disk, request.dp, request.to_host)

    async def state(self, dp: str) -> MirrorState:
        running = self._running.get(dp)
        if running is None:
            return MirrorState(running=False, failed="the storage service knows of no such mirror (any more)")
        try:
            return await self._bus.call(vm_disks.DISK_MIRROR_STATE, DiskId(dp=running.request.disk), host=self._host)
        except ApiError as error:
            if error.code not in _GONE:
                raise
            return MirrorState(running=False, failed=f"the VM has the disk no more: {error}")

    async def end(self, request: MirrorEnd) -> None:
        """Raises MIRROR_FAILED [datapath of the VM's disk] when it is not whole; then it goes on, or has failed."""
        async with self._turns.of(request.dp):
            running = self._running.get(request.dp)
            if running is not None and request.whole:
                await for_nobody(self._complete(running, request.keep))
            elif running is not None:
                del self._running[request.dp]
                await for_nobody(self._undo(running.request, running.holds, asyncio.CancelledError()))
            elif request.whole:
                raise ApiError("MIRROR_FAILED", request.dp)

    async def _complete(self, running: _Running, keep: str) -> None:
        disk, dp = running.request.disk, running.request.dp
        state = await self.state(dp)
        if not state.ready:
            log.warning("the mirror of %s is not ready: %s", disk, state.failed or f"{state.progress:.0%}")
            raise ApiError("MIRROR_FAILED", disk)
        try:
            await self._bus.call(
                vm_disks.DISK_MIRROR_END, DiskMirrorEnd(dp=disk, pivot=False, whole=True), host=self._host
            )
        except ApiError as error:
            log.warning("the mirror of %s has not ended well: %s", disk, error)
            raise ApiError("MIRROR_FAILED", disk) from error
        del self._running[dp]
        running.far.keep = keep
        try:
            await running.holds.aclose()
        finally:
            await self._journal.note({self._prefix + dp: None})
        log.info("%s has all that %s has", dp, disk)

    async def _undo(self, request: Mirror, holds: AsyncExitStack, error: BaseException) -> None:
        """The hypervisor lets go of the target before it is closed. What it cannot be told now is left to `clear`."""
        cleared = False
        try:
            await self._let_go(request.disk)
            cleared = True
        except (ApiError, OSError) as problem:
            log.warning("the mirror of %s is not cleared away yet: %s", request.disk, problem)
        try:
            await holds.__aexit__(type(error), error, None)
        except (ApiError, OSError) as problem:
            log.warning("%s is not let go of: %s", request.dp, problem)
        if cleared:
            await self._journal.note({self._prefix + request.dp: None})
        self._more_left.set()

    async def _let_go(self, disk: str) -> None:
        try:
            await self._bus.call(vm_disks.DISK_MIRROR_END, DiskMirrorEnd(dp=disk, pivot=False), host=self._host)
        except ApiError as error:
            if error.code not in _GONE:
                raise

    # ---- what is left, mostly by a former process

    async def clear(self) -> None:
        """Until cancelled: has the hypervisor let go of targets that nobody passes on to any more, however often that
        has to be tried.
        """
        told = ""
        while True:
            self._more_left.clear()
            for request in self._left():
                async with self._turns.of(request.dp):
                    try:
                        if request.dp not in self._running:
                            await for_nobody(self._clear(request))
                    except (ApiError, OSError) as error:
                        if str(error) != told:
                            told = str(error)
                            log.warning("the mirror of %s is not cleared away yet: %s", request.disk, told)
            if self._left():
                await asyncio.sleep(AGAIN)
            else:
                await self._more_left.wait()

    async def _clear(self, left: Mirror) -> None:
        await self._let_go(left.disk)
        await self._journal.write({self._prefix + left.dp: None})

    def _left(self) -> list[Mirror]:
        entries: list[tuple[str, Any]] = [
            (key.removeprefix(self._prefix), value)
            for key, value in self._journal.data.items()
            if key.startswith(self._prefix)
        ]
        return [
            msgspec.convert(value, Mirror)
            for dp, value in entries
            if dp not in self._running and dp not in self._starting
        ]

    async def close(self) -> None:
        """The service stops: mirrors break, and VMs go on without."""
        for dp, running in list(self._running.items()):
            del self._running[dp]
            await settle(self._undo(running.request, running.holds, asyncio.CancelledError()))
