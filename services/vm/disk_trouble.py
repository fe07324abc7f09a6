"""Disks without room and disks with errors, under VMs that run, on one host.

The hypervisor stops a guest whose write finds no room, and keeps the write. The VM is Paused then, and goes on by
itself: the write is tried again after a while, and that is what shows whether there is room, whatever the SR is made
of. A try that fails does no harm; the VM is only called Running when one has succeeded. Whoever unpauses the VM makes
a try of his own. A guest is told of all other errors, as by real hardware; here people are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import msgspec

from services.vm.host import Living, VmHost
from shared.contracts.vm import Cause, PowerState
from shared.errors import ApiError

log = logging.getLogger("vm.disks")

FIRST_TRY, LONGEST_PAUSE = 5.0, 300.0
"""Seconds between tries; they become longer."""
HOLDS_AFTER = 1.0
"""Seconds without another stop after which a try has succeeded."""
CALM_AFTER = 60.0
"""Seconds after which another stop is another trouble, of which people hear anew and soon."""
ASK_AGAIN = 20.0
"""Seconds after which a hypervisor that did not answer is asked again."""
ERRORS_TOLD_EVERY = 600.0
"""Seconds between two alerts about errors of one disk."""


class DiskTrouble:
    def __init__(self, host: VmHost) -> None:
        self._host = host
        self._backend = host.backend
        self._stops: dict[str, asyncio.Event] = {}
        """VMs (uuid) that somebody looks after: set when the hypervisor has stopped one again."""
        self._told: dict[tuple[str, str], float] = {}
        self._backend.disk_news.stalled = self._stalled
        self._backend.disk_news.failed = self._error

    def settle_all(self) -> None:
        """After a start of the service."""
        for vm in self._host.vms():
            self._stalled(vm)

    # ---- no room

    def _stalled(self, vm: str) -> None:
        stopped = self._stops.get(vm)
        if stopped is None:
            stopped = self._stops[vm] = asyncio.Event()
            self._host.spawn(self._look_after(vm, stopped), f"disk without room of VM {vm}")
        stopped.set()

    async def _look_after(self, vm: str, stopped: asyncio.Event) -> None:
        """Until the VM has run for a while, or is no more."""
        told = ""
        try:
            while True:
                try:
                    await self._until_calm(vm, stopped)
                    return
                except ApiError as error:
                    if error.code == "VM_BAD_POWER_STATE":
                        return  # it has ended
                    if str(error) != told:
                        told = str(error)
                        log.warning("nobody knows whether VM %s stands still for a disk without room: %s", vm, told)
                await asyncio.sleep(ASK_AGAIN)
        finally:
            del self._stops[vm]

    async def _until_calm(self, vm: str, stopped: asyncio.Event) -> None:
        pause, next_try = FIRST_TRY, 0.0
        while True:
            stopped.clear()
            if not await self._stands_still(vm):
                next_try = 0.0
                if not await _comes(stopped, CALM_AFTER):
                    return
                continue
            if not next_try:
                next_try, pause = time.monotonic() + pause, min(2 * pause, LONGEST_PAUSE)
            if not await _comes(stopped, next_try - time.monotonic()):
                next_try = 0.0
                await self._try(vm, stopped)

    async def _stands_still(self, vm: str) -> bool:
        """Whether it is to be looked after: not a VM that somebody had paused before, but one whose disk is closed for
        the time being as well.
        """
        async with self._host.living("disk_full", vm) as domain:
            device = await self._backend.disks.stalled(vm)
            if device and domain.record.power_state is PowerState.RUNNING:
                log.warning("VM %s stands still: there is no room for disk %s", vm, device)
                self._note(domain, PowerState.PAUSED, device, Cause.DISK_FULL)
            return bool(domain.record.stalled)

    async def _try(self, vm: str, stopped: asyncio.Event) -> None:
        async with self._host.living("disk_room", vm) as domain:
            if domain.record.stalled:
                stopped.clear()
                await self._backend.unpause(vm)
                await _comes(stopped, HOLDS_AFTER)
                if not await self._backend.disks.stalled(vm):
                    log.info("VM %s goes on: there is room for disk %s", vm, domain.record.stalled)
                    self._note(domain, PowerState.RUNNING, "", Cause.DISK_ROOM)

    def _note(self, domain: Living, state: PowerState, device: str, cause: Cause) -> None:
        record = msgspec.structs.replace(domain.record, power_state=state, stalled=device)
        self._host.records.put(record)
        domain.note(record, cause)

    # ---- errors

    def _error(self, vm: str, device: str) -> None:
        now, told = time.monotonic(), self._told.get((vm, device))
        if told is None or now - told > ERRORS_TOLD_EVERY:
            self._told = {one: when for one, when in self._told.items() if now - when < ERRORS_TOLD_EVERY}
            self._told[vm, device] = now
            self._host.spawn(self._tell(vm, device), f"error of a disk of VM {vm}")

    async def _tell(self, vm: str, device: str) -> None:
        try:
            async with self._host.living("disk_error", vm) as domain:
                vbds = [vbd.ref for vbd in domain.record.domain.vm.vbds if vbd.device == device]
                if vbds:
                    domain.note(domain.record, Cause.DISK_ERROR, vbds[0])
        except ApiError as error:
            log.info("an error of disk %s of VM %s is not told: %s", device, vm, error)
            self._told.pop((vm, device), None)


async def _comes(event: asyncio.Event, within: float) -> bool:
    """`within`: seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(within, 0.0)):
            await event.wait()
    return event.is_set()
