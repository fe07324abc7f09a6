"""Disks that come and go while their VM runs, on one host.

What was interrupted is settled: a disk that the domain has by then stays, any other is closed. So is one that a guest
has let go of by itself, or long after it was asked to.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from services.vm.disks import Slot
from services.vm.host import RELEASE_RETRY, Living, VmHost, bad_power_state
from services.vm.micro_ops import DiskChange
from shared.contracts.vm import PowerState, VbdSpec, VmState
from shared.contracts.vm_disks import VbdPlug, VbdUnplug
from shared.errors import ApiError

log = logging.getLogger("vm.disks")


class DiskChanges:
    def __init__(self, host: VmHost) -> None:
        self._host = host
        self._ops = host.ops
        self._disks = host.backend.disks
        self._settling: set[str] = set()
        host.backend.disk_news.changed = self._settle_later

    def settle_all(self) -> None:
        """After a start of the service."""
        self._host.spawn(self._settle_each(), "settle disks")

    # ---- requests

    async def plug(self, request: VbdPlug) -> VmState:
        vbd = request.vbd
        async with self._host.living("vbd_plug", request.vm) as domain:
            await self._close_former(domain, vbd.device)
            there = _at(domain, vbd.device)
            if there is not None and there != vbd and (there.sr or there.ref != vbd.ref):
                raise ApiError("DEVICE_ALREADY_ATTACHED", vbd.ref)
            if there != vbd:
                self._check(domain, vbd)
                await self._plug(domain, DiskChange(domain.record, vbd, there))
        return self._host.query(request.vm)

    async def unplug(self, request: VbdUnplug) -> VmState:
        async with self._host.living("vbd_unplug", request.vm) as domain:
            vbd = _named(domain, request.vbd)
            if vbd is not None:
                state = domain.record.power_state
                if state is not PowerState.RUNNING and not request.force:
                    raise bad_power_state(domain.record.domain.vm.ref, PowerState.RUNNING, state)
                await self._unplug(domain, DiskChange(domain.record, vbd), force=request.force)
        return self._host.query(request.vm)

    async def eject(self, request: VbdUnplug) -> VmState:
        async with self._host.living("vbd_eject", request.vm) as domain:
            vbd = _named(domain, request.vbd)
            if vbd is not None and vbd.sr:
                await self._eject(domain, vbd, force=request.force)
        return self._host.query(request.vm)

    # ---- the VM's turn is held

    def _check(self, domain: Living, vbd: VbdSpec) -> None:
        """Raises what would keep the VM from starting with it."""
        vm = domain.record.domain.vm
        others = [one for one in vm.vbds if one.device != vbd.device]
        self._host.backend.check(msgspec.structs.replace(vm, vbds=[*others, vbd]))

    async def _plug(self, domain: Living, change: DiskChange) -> None:
        try:
            await self._ops.plug(change)
        finally:
            self._note(domain, change)

    async def _unplug(self, domain: Living, change: DiskChange, *, force: bool) -> None:
        try:
            await self._ops.unplug(change, force=force)
        finally:
            self._note(domain, change)

    async def _eject(self, domain: Living, vbd: VbdSpec, *, force: bool) -> None:
        empty = msgspec.structs.replace(vbd, sr="", location="", vdi="")
        await self._unplug(domain, DiskChange(domain.record, vbd, empty), force=force)

    def _note(self, domain: Living, change: DiskChange) -> None:
        if change.record is not domain.record:
            domain.note(change.record)
        if change.record.moving:
            self._settle_later(change.record.uuid)

    async def _close_former(self, domain: Living, device: str) -> None:
        """Of a disk that was at this place and could not be closed."""
        for vbd in domain.record.moving:
            if vbd.device == device:
                await self._settle_one(domain, vbd)

    async def _settle_one(self, domain: Living, vbd: VbdSpec) -> None:
        """A disk on its way, in whichever direction."""
        there = _at(domain, vbd.device)
        change = DiskChange(domain.record, vbd, there)
        chain = await self._disks.chain(change.slot)
        if chain.images and vbd.device in await self._disks.plugged(change.slot.vm):
            await self._plug(domain, change)
        else:
            await self._unplug(domain, change, force=True)

    # ---- in the background

    async def _settle_each(self) -> None:
        for vm in self._host.vms():
            await self._settle(vm)

    def _settle_later(self, vm: str) -> None:
        if vm not in self._settling:
            self._settling.add(vm)
            self._host.spawn(self._settle(vm), f"settle disks of VM {vm}")

    async def _settle(self, vm: str) -> None:
        """However often that takes, as long as the domain lives."""
        told = ""
        while True:
            self._settling.discard(vm)  # what is asked for from here on is not forgotten
            try:
                async with self._host.living("settle_disks", vm) as domain:
                    here = await self._disks.plugged(vm)
                    for vbd in domain.record.domain.vm.vbds:
                        if vbd.sr and vbd.device not in here:
                            log.info("VM %s has let go of VBD %s", vm, vbd.uuid)
                            await self._unplug(domain, DiskChange(domain.record, vbd), force=True)
                        elif vbd.type == "CD" and vbd.sr and await self._disks.ejected(Slot(vm, vbd.device, vbd.ref)):
                            log.info("VM %s has ejected the medium of VBD %s", vm, vbd.uuid)
                            await self._eject(domain, vbd, force=False)
                    for vbd in domain.record.moving:
                        await self._settle_one(domain, vbd)
                return
            except (ApiError, OSError) as error:
                if isinstance(error, ApiError) and error.code == "VM_BAD_POWER_STATE":
                    return  # its end has closed everything
                if str(error) != told:
                    told = str(error)
                    log.warning("disks of VM %s are not settled yet: %s", vm, told)
            await asyncio.sleep(RELEASE_RETRY)


def _at(domain: Living, device: str) -> VbdSpec | None:
    vbds = domain.record.domain.vm.vbds
    return next((vbd for vbd in vbds if vbd.device == device), None)


def _named(domain: Living, ref: str) -> VbdSpec | None:
    return next((vbd for vbd in domain.record.domain.vm.vbds if vbd.ref == ref), None)
