"""Disks that move to another SR while their VM runs, on one host: mirrored, and then the VM goes on with the copy.

The record says what a move has come to: that the new disk is being filled; that the VM goes on with it, before the VM
can have written to it alone; that it has the VBD's datapath, for until then it has one of its own. A move whose call
ends early is undone, or finished if the VM is past that point; so is one that a former process of the service has left.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath

import msgspec

from services.vm import plan
from services.vm.disk_requests import reporter
from services.vm.disks import Progress, Slot
from services.vm.host import RELEASE_RETRY, Living, VmHost
from services.vm.micro_ops import to_the_end
from services.vm.records import Mirror, Record
from shared.bus.context import CallContext, current
from shared.bus.interface import Bus
from shared.contracts import storage
from shared.contracts.vm import PowerState, VbdSpec, VmState
from shared.contracts.vm_disks import DiskMirror, VbdMove, VbdMoved
from shared.errors import ApiError

log = logging.getLogger("vm.moves")

_BROKEN = frozenset({"INTERNAL_ERROR", "DEVICE_NOT_ATTACHED"})
"""What it is called when the hypervisor, or the whole domain, fails a mirror that was there."""
FIRST_LOOK, LOOK_EVERY = 0.02, 0.5
"""Seconds between looks at a mirror; they become longer."""


class DiskMoves:
    def __init__(self, host: VmHost, bus: Bus) -> None:
        self._host = host
        self._disks = host.backend.disks
        self._bus = bus
        self._closing = False
        self._settling: set[str] = set()
        self._carried: dict[str, int] = {}
        """Datapaths of new disks that calls are busy with, and how many."""

    def settle_all(self) -> None:
        """After a start of the service."""
        for vm in self._host.vms():
            self._settle_later(vm)

    async def close(self) -> None:
        """Moves go on in the hypervisor; the next process of the service settles them."""
        self._closing = True

    # ---- the request

    async def move(self, request: VbdMove) -> VmState:
        vm, vbd = request.vm, request.vbd
        dp = plan.mirror_datapath(vm, vbd.device, vbd.vdi)
        self._carried[dp] = self._carried.get(dp, 0) + 1
        try:
            await self._move(vm, vbd, dp)
        except ApiError as error:
            if (vm, vbd.ref, vbd.vdi) not in self._host.landed:
                raise
            log.info("VBD %s has its new disk, whatever went wrong: %s", vbd.uuid, error)
        finally:
            self._carried[dp] -= 1
            if not self._carried[dp]:
                del self._carried[dp]
        return self._host.query(vm)

    async def end(self, request: VbdMove) -> VbdMoved:
        vm, vbd = request.vm, request.vbd
        dp = plan.mirror_datapath(vm, vbd.device, vbd.vdi)
        moved, known, move = False, True, (vm, vbd.ref, vbd.vdi)
        try:
            async with self._host.living("vbd_move_end", vm) as domain:
                mirror = domain.record.mirror(vbd.device)
                if mirror is not None and mirror.dp == dp:
                    await to_the_end(self._settle_one(domain, mirror))
                there = next((one for one in domain.record.domain.vm.vbds if one.ref == vbd.ref), None)
                moved = there is not None and (there.sr, there.location) == (vbd.sr, vbd.location)
        except ApiError as error:
            if not _is_over(error):
                raise
            moved, known = self._host.counting.get(move, False), move in self._host.counting
        return VbdMoved(moved=moved or move in self._host.landed, known=known or move in self._host.landed)

    async def _move(self, vm: str, vbd: VbdSpec, dp: str) -> None:
        async with self._host.living("vbd_move", vm) as domain:
            former = _at(domain.record, vbd)
            if (former.sr, former.location) == (vbd.sr, vbd.location):
                return
            known = domain.record.mirror(vbd.device)
            if known is not None and known.dp != dp:
                raise ApiError("OTHER_OPERATION_IN_PROGRESS", "VBD", vbd.ref, "mirror", known.dp)
            if known is None:
                await self._begin(domain, Mirror(vbd=vbd, dp=dp))
        try:
            await self._until_ready(Slot(vm, vbd.device, vbd.ref), former.vdi, reporter(self._bus))
            async with self._host.living("vbd_move", vm) as domain:
                mirror = domain.record.mirror(vbd.device)
                if mirror is not None and mirror.dp == dp:
                    await to_the_end(self._finish(domain, mirror))
                elif _at(domain.record, vbd).location != vbd.location:
                    raise ApiError("MIRROR_FAILED", former.vdi)  # somebody has ended it
        except BaseException as error:
            if not self._closing:
                log.warning("VBD %s does not go on with its new disk: %s", vbd.uuid, error or type(error).__name__)
                await to_the_end(self._give_up(vm, dp))
            if isinstance(error, ApiError) and error.code in _BROKEN:
                raise ApiError("MIRROR_FAILED", former.vdi) from error
            raise

    async def _begin(self, domain: Living, mirror: Mirror) -> None:
        self._note(domain, domain.record.with_mirror(mirror))
        vbd = mirror.vbd
        self._host.counting[domain.record.uuid, vbd.ref, vbd.vdi] = False
        try:
            wanted = storage.DiskOpen(dp=mirror.dp, sr=vbd.sr, location=vbd.location, writable=True)
            opened = await self._bus.call(storage.OPEN, storage.Open(disks=[wanted]), host=self._host.uuid)
            mirror = msgspec.structs.replace(mirror, backend=opened.backends[0])
            self._note(domain, domain.record.with_mirror(mirror))
            await self._disks.mirror(_slot(domain, mirror), DiskMirror(dp="", target=opened.backends[0]))
        except BaseException:
            await to_the_end(self._undo_or_leave(domain, mirror))
            raise

    async def _until_ready(self, slot: Slot, vdi: str, progress: Progress) -> None:
        """Raises MIRROR_FAILED [vdi]; DEVICE_NOT_ATTACHED when the domain has ended or has the disk no more."""
        pause = FIRST_LOOK
        while True:
            state = await self._disks.mirror_state(slot)
            if state.ready:
                return
            if not state.running:
                log.warning("the mirror of VBD %s failed: %s", slot.vbd, state.failed or "it was ended")
                raise ApiError("MIRROR_FAILED", vdi)
            await progress(state.progress)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK_EVERY)

    # ---- the VM's turn is held

    async def _finish(self, domain: Living, mirror: Mirror) -> None:
        """Both disks are alike. The guest stands still while its disk changes, and both are flushed: either will do
        until the record says which one it goes on with.
        """
        try:
            await self._host.backend.pause(domain.record.uuid)
            mirror = await self._change(domain, mirror)
        finally:
            await self._go_on(domain)
        await self._hand_over(domain, mirror)

    async def _change(self, domain: Living, mirror: Mirror) -> Mirror:
        slot = _slot(domain, mirror)
        try:
            if not await self._is_there(slot, mirror):
                await self._disks.mirror_end(slot, pivot=True)
        except ApiError as error:
            log.warning("VBD %s: the change to its new disk: %s", mirror.vbd.uuid, error)
            if not await self._is_there(slot, mirror):
                raise
        return self._landed(domain, mirror)

    def _landed(self, domain: Living, mirror: Mirror) -> Mirror:
        if not mirror.landed:
            mirror = msgspec.structs.replace(mirror, landed=True)
            self._note(domain, domain.record.with_mirror(mirror))
        self._host.counting[domain.record.uuid, mirror.vbd.ref, mirror.vbd.vdi] = True
        return mirror

    async def _go_on(self, domain: Living) -> None:
        if domain.record.power_state is PowerState.RUNNING:
            await self._host.backend.unpause(domain.record.uuid)

    async def _hand_over(self, domain: Living, mirror: Mirror) -> None:
        """The domain has the new disk."""
        vbd = mirror.vbd
        dp = plan.datapath(domain.record.uuid, vbd.device)
        request = storage.HandOver(dp=dp, other=mirror.dp, sr=vbd.sr, location=vbd.location)
        _for_nobody()
        await self._bus.call(storage.HAND_OVER, request, host=self._host.uuid)
        self._note(domain, domain.record.moved(mirror))
        self._host.landed.add((domain.record.uuid, vbd.ref, vbd.vdi))
        log.info("VBD %s has gone on with disk %s of SR %s", vbd.uuid, vbd.location, vbd.sr)

    async def _undo(self, domain: Living, mirror: Mirror) -> None:
        """The domain has its former disk, and keeps it."""
        _for_nobody()
        slot = _slot(domain, mirror)
        if (await self._disks.chain(slot)).images:
            await self._disks.mirror_end(slot, pivot=False)
        await self._bus.call(storage.CLOSE, storage.Close(dps=[mirror.dp]), host=self._host.uuid)
        self._note(domain, domain.record.without(mirror))

    async def _undo_or_leave(self, domain: Living, mirror: Mirror) -> None:
        try:
            await self._undo(domain, mirror)
        except (ApiError, OSError) as error:
            log.warning("the move of VBD %s is not undone yet: %s", mirror.vbd.uuid, error)
            self._settle_later(domain.record.uuid)

    async def _is_there(self, slot: Slot, mirror: Mirror) -> bool:
        """Whether the domain has the new disk. Raises when nobody can tell."""
        if mirror.landed:
            return True
        images = (await self._disks.chain(slot)).images
        there = {posixpath.normpath(image) for image in images[:1]}
        return mirror.backend is not None and posixpath.normpath(mirror.backend.path) in there

    async def _settle_one(self, domain: Living, mirror: Mirror) -> None:
        there = await self._is_there(_slot(domain, mirror), mirror)
        if there:
            mirror = self._landed(domain, mirror)
        await self._go_on(domain)
        if there:
            await self._hand_over(domain, mirror)
        else:
            await self._undo(domain, mirror)

    def _note(self, domain: Living, record: Record) -> None:
        self._host.records.put(record)
        domain.note(record)

    # ---- what is left

    async def _give_up(self, vm: str, dp: str) -> None:
        """The end of a domain closes everything."""
        _for_nobody()
        try:
            async with self._host.living("settle_moves", vm) as domain:
                for mirror in domain.record.mirrors:
                    if mirror.dp == dp:
                        await self._settle_one(domain, mirror)
        except (ApiError, OSError) as error:
            if not _is_over(error):
                log.warning("what is left of the move to %s is settled later: %s", dp, error)
                self._settle_later(vm)

    def _settle_later(self, vm: str) -> None:
        if vm not in self._settling:
            self._settling.add(vm)
            self._host.spawn(self._settle(vm), f"settle moves of disks of VM {vm}")

    async def _settle(self, vm: str) -> None:
        """However often that takes, as long as the domain lives."""
        told = ""
        while True:
            self._settling.discard(vm)  # what is left from here on is not forgotten
            try:
                async with self._host.living("settle_moves", vm) as domain:
                    for mirror in domain.record.mirrors:
                        if mirror.dp not in self._carried:
                            await self._settle_one(domain, mirror)
                return
            except (ApiError, OSError) as error:
                if _is_over(error):
                    return
                if str(error) != told:
                    told = str(error)
                    log.warning("moves of disks of VM %s are not settled yet: %s", vm, told)
            await asyncio.sleep(RELEASE_RETRY)


def _for_nobody() -> None:
    """What the caller's task or deadline ends is the wish for a move, not the duty to bring it to an end."""
    context = current.get()
    current.set(CallContext(term=context.term, traceparent=context.traceparent, observed=context.observed))


def _is_over(error: Exception) -> bool:
    return isinstance(error, ApiError) and error.code == "VM_BAD_POWER_STATE"


def _slot(domain: Living, mirror: Mirror) -> Slot:
    return Slot(domain.record.uuid, mirror.vbd.device, mirror.vbd.ref)


def _at(record: Record, vbd: VbdSpec) -> VbdSpec:
    """The VBD as the domain has it. Raises DEVICE_NOT_ATTACHED."""
    there = next((one for one in record.domain.vm.vbds if one.ref == vbd.ref and one.device == vbd.device), None)
    if there is None or not there.sr:
        raise ApiError("DEVICE_NOT_ATTACHED", vbd.ref)
    return there
