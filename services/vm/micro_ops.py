"""Carries out plans of micro-operations; when one fails, undoes what was begun."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from services.vm import plan
from services.vm.backend import Backend, Disk, Domain, Nic
from services.vm.disks import Slot
from services.vm.plan import MicroOp, Plan
from services.vm.records import Phase, Record, Records
from shared import trace
from shared.bus.context import CallContext, current
from shared.bus.interface import Bus
from shared.contracts import network, storage
from shared.contracts.storage import Backend as DiskBackend
from shared.contracts.vm import PowerState, VbdSpec

log = logging.getLogger("vm.micro_ops")

Result = TypeVar("Result")


class Build:
    """One VM on its way to or from its domain: what the micro-operations read and change.

    `leftover`: the start failed and could not be undone altogether; what is left is on record, in phase RELEASING.
    `opening`: storage has opened the disks, the hypervisor is about to. `opened`: set when it has, or will not.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.leftover = False
        self.opening = False
        self.opened = asyncio.Event()

    @property
    def domain(self) -> Domain:
        return self.record.domain

    def change(self, **fields: Any) -> Record:
        self.record = msgspec.structs.replace(self.record, **fields)
        return self.record


class DiskChange(Build):
    """A disk on its way into a domain that runs, or out of it. `left`: what the domain has in its place without it: an
    empty drive, or nothing.
    """

    def __init__(self, record: Record, vbd: VbdSpec, left: VbdSpec | None = None) -> None:
        super().__init__(record)
        self.vbd = vbd
        self.left = left
        self.backend: DiskBackend | None = None

    @property
    def slot(self) -> Slot:
        return Slot(self.record.uuid, self.vbd.device, self.vbd.ref)

    def attach(self, disk: Disk | None, moving: tuple[VbdSpec, ...]) -> Record:
        """The domain has this disk at that place, or nothing."""
        device, domain = self.vbd.device, self.record.domain
        disks = tuple(one for one in domain.disks if one.spec.device != device)
        vbds = [one for one in domain.vm.vbds if one.device != device]
        if disk is not None:
            disks, vbds = (*disks, disk), [*vbds, disk.spec]
        vm = msgspec.structs.replace(domain.vm, vbds=vbds)
        return self.change(domain=msgspec.structs.replace(domain, vm=vm, disks=disks), moving=moving)

    @property
    def others_moving(self) -> tuple[VbdSpec, ...]:
        return tuple(one for one in self.record.moving if one.device != self.vbd.device)


class MicroOps:
    """Of one host. `host`: its uuid."""

    def __init__(self, host: str, bus: Bus, backend: Backend, records: Records) -> None:
        self._host = host
        self._bus = bus
        self._backend = backend
        self._records = records
        self._do: dict[MicroOp, Callable[[Any], Awaitable[None]]] = {
            MicroOp.RESERVE: self._reserve,
            MicroOp.OPEN_DISKS: self._open_disks,
            MicroOp.PLUG_VIFS: self._plug_vifs,
            MicroOp.CREATE: self._create,
            MicroOp.SURVIVE: self._survive,
            MicroOp.UNPAUSE: self._unpause,
            MicroOp.CONDEMN: self._condemn,
            MicroOp.DESTROY: self._destroy,
            MicroOp.CLOSE_DISKS: self._close_disks,
            MicroOp.UNPLUG_VIFS: self._unplug_vifs,
            MicroOp.FORGET: self._forget,
            MicroOp.MOVE: self._move,
            MicroOp.OPEN_DISK: self._open_disk,
            MicroOp.ADD_DISK: self._add_disk,
            MicroOp.KEEP: self._keep,
            MicroOp.REMOVE_DISK: self._remove_disk,
            MicroOp.TAKE_DISK: self._take_disk,
            MicroOp.CLOSE_DISK: self._close_disk,
            MicroOp.DROP: self._drop,
        }

    async def start(self, build: Build, stages: Plan) -> None:
        """All of the plan or nothing, then raises what failed."""
        begun: list[plan.Stage] = []
        try:
            for stage in stages:
                begun.append(stage)
                await self._stage(stage, build)
        except BaseException as problem:
            build.opened.set()
            log.warning("start of VM %s failed, undoing %s: %s", build.record.uuid, begun, problem)
            try:
                await to_the_end(self._carry_out(plan.undo(tuple(begun)), build))
            except Exception:
                log.exception(
                    "the failed start of VM %s could not be undone; it will be tried again", build.record.uuid
                )
                await self._condemn(build)
                build.leftover = True
            raise

    async def release(self, build: Build) -> None:
        """Ends a VM's domain and gives back its devices, even when its caller is cancelled. Stops at what fails."""
        await to_the_end(self._carry_out(plan.release(build.domain.vm, build.record.moving), build))

    async def plug(self, change: DiskChange) -> None:
        """Gives a domain a disk, or leaves it without. What could not be undone stays in `moving`."""
        begun: list[plan.Stage] = []
        try:
            for stage in plan.plug(change.vbd):
                begun.append(stage)
                await self._stage(stage, change)
        except BaseException as problem:
            log.warning("plug of VBD %s failed, undoing %s: %s", change.vbd.uuid, begun, problem)
            try:
                await to_the_end(self._carry_out(plan.undo(tuple(begun)), change))
            except Exception:
                log.exception("the failed plug of VBD %s could not be undone; it is tried again", change.vbd.uuid)
            raise

    async def unplug(self, change: DiskChange, *, force: bool) -> None:
        """Takes a disk from a domain. It has gone on nobody's wish once the guest has let go of it."""
        stages = plan.unplug(change.vbd, force)
        await self._stage(stages[0], change)
        await to_the_end(self._carry_out(stages[1:], change))

    async def close(self, change: DiskChange) -> None:
        """Closes a disk on its way that the domain does not have."""
        await to_the_end(self._carry_out(plan.close(change.vbd), change))

    async def _carry_out(self, stages: Plan, build: Build) -> None:
        # The caller's deadline and its task's cancellation end the wish for a VM, not the duty to clean up after it.
        context = current.get()
        current.set(CallContext(term=context.term, traceparent=context.traceparent, observed=context.observed))
        for stage in stages:
            await self._stage(stage, build)

    async def _stage(self, stage: plan.Stage, build: Build) -> None:
        if len(stage) == 1:
            await self._one(stage[0], build)
            return
        results = await _all([self._one(op, build) for op in stage])
        for problem in results:
            if problem is not None:
                raise problem

    async def _one(self, op: MicroOp, build: Build) -> None:
        with trace.span(f"vm.{op}"):
            await self._do[op](build)

    # ---- forwards

    async def _reserve(self, build: Build) -> None:
        self._records.put(build.record)

    async def _open_disks(self, build: Build) -> None:
        vm = build.domain.vm
        wanted = [
            storage.DiskOpen(
                dp=plan.datapath(vm.uuid, vbd.device), sr=vbd.sr, location=vbd.location, writable=vbd.mode == "RW"
            )
            for vbd in vm.vbds
            if vbd.sr
        ]
        opened = await self._bus.call(storage.OPEN, storage.Open(disks=wanted), host=self._host)
        backends = {backend.dp: backend for backend in opened.backends}
        disks = tuple(Disk(vbd, backends[plan.datapath(vm.uuid, vbd.device)] if vbd.sr else None) for vbd in vm.vbds)
        build.change(domain=msgspec.structs.replace(build.domain, disks=disks))
        build.opening = True

    async def _plug_vifs(self, build: Build) -> None:
        vm = build.domain.vm
        wanted = [
            network.VifPlug(vm=vm.uuid, device=vif.device, mac=vif.mac, bridge=vif.bridge, mtu=vif.mtu)
            for vif in vm.vifs
        ]
        plugged = await self._bus.call(network.VIFS_PLUG, network.VifsPlug(vifs=wanted), host=self._host)
        backends = {backend.device: backend for backend in plugged.vifs}
        nics = tuple(Nic(vif, backends[vif.device]) for vif in vm.vifs)
        build.change(domain=msgspec.structs.replace(build.domain, nics=nics))

    async def _create(self, build: Build) -> None:
        try:
            build.change(built=await self._backend.create(build.domain))
        finally:
            build.opened.set()

    async def _survive(self, build: Build) -> None:
        self._records.put(build.change(phase=Phase.BUILT, start_time=time.time()))

    async def _unpause(self, build: Build) -> None:
        await self._backend.unpause(build.record.uuid)
        self._records.put(build.change(power_state=PowerState.RUNNING))

    # ---- backwards

    async def _condemn(self, build: Build) -> None:
        record = build.change(phase=Phase.RELEASING)
        try:
            self._records.put(record)
        except OSError as error:  # a full disk must not keep a VM from ending; its older record does no harm
            log.error("cannot note that VM %s is being released: %s", record.uuid, error)

    async def _destroy(self, build: Build) -> None:
        await self._backend.destroy(build.domain)
        build.change(built=None)

    async def _close_disks(self, build: Build) -> None:
        vm = build.domain.vm
        vbds = [*vm.vbds, *build.record.moving]
        mirrors = {mirror.dp for mirror in build.record.mirrors}
        dps = sorted({plan.datapath(vm.uuid, vbd.device) for vbd in vbds if vbd.sr} | mirrors)
        await self._bus.call(storage.CLOSE, storage.Close(dps=dps), host=self._host)

    async def _unplug_vifs(self, build: Build) -> None:
        await self._bus.call(network.VIFS_UNPLUG, network.VifsUnplug(vm=build.record.uuid), host=self._host)

    async def _forget(self, build: Build) -> None:
        self._records.remove(build.record.uuid)

    # ---- one disk of a running domain

    async def _move(self, change: DiskChange) -> None:
        left = None if change.left is None else Disk(change.left)
        self._records.put(change.attach(left, (*change.others_moving, change.vbd)))

    async def _open_disk(self, change: DiskChange) -> None:
        vbd = change.vbd
        wanted = storage.DiskOpen(
            dp=plan.datapath(change.record.uuid, vbd.device),
            sr=vbd.sr,
            location=vbd.location,
            writable=vbd.mode == "RW",
        )
        opened = await self._bus.call(storage.OPEN, storage.Open(disks=[wanted]), host=self._host)
        change.backend = opened.backends[0]

    async def _add_disk(self, change: DiskChange) -> None:
        await self._backend.disks.plug(change.slot, Disk(change.vbd, change.backend))

    async def _keep(self, change: DiskChange) -> None:
        self._records.put(change.attach(Disk(change.vbd, change.backend), change.others_moving))

    async def _remove_disk(self, change: DiskChange) -> None:
        await self._backend.disks.unplug(change.slot, force=False)

    async def _take_disk(self, change: DiskChange) -> None:
        await self._backend.disks.unplug(change.slot, force=True)

    async def _close_disk(self, change: DiskChange) -> None:
        dp = plan.datapath(change.record.uuid, change.vbd.device)
        await self._bus.call(storage.CLOSE, storage.Close(dps=[dp]), host=self._host)

    async def _drop(self, change: DiskChange) -> None:
        self._records.put(change.change(moving=change.others_moving))


async def _all(work: list[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
    """Waits until each has ended, also when cancelled: then with their cancellation."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks, return_exceptions=True)
    except asyncio.CancelledError:
        await to_the_end(asyncio.wait(tasks))
        raise


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Awaits work that must not be left half-way. A cancellation meanwhile is raised after it, unless it failed."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result
