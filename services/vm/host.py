"""One host: brings about what requests want of its VMs, and notices what guests do by themselves.

Operations of one VM run one after the other in the order they came, those of different VMs side by side. Requests may
come twice (the bus sends again what a restarted service may not have done): each handler brings about a state, and one
that finds that state answers it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from services.vm import plan
from services.vm.backend import Backend, Disk, Domain, Expected, Stopped
from services.vm.disks import Slot
from services.vm.metrics import Metrics
from services.vm.micro_ops import Build, MicroOps, to_the_end
from services.vm.plan import Reaction
from services.vm.records import Counters, Phase, Record, Records, boot_id
from shared.bus.interface import Bus
from shared.contracts import vm as contract
from shared.contracts.vm import Cause, ConsoleRequest, PowerState, VmReboot, VmShutdown, VmSpec, VmStart, VmState
from shared.errors import ApiError

log = logging.getLogger("vm.host")

RELEASE_RETRY = 5.0
"""Seconds between attempts to give back what a VM's end left behind."""


class _Vm:
    """A VM of which there is a domain, or somebody working on it.

    `record`: None when it is halted. `replaced`: during a reboot, the former record, which is what others see.
    `build`: a domain that is being built.
    `stopped`: set when the domain stopped by itself. `turns`: how many hold the lock or wait for it. `finishing`:
    somebody goes on trying to end what is left of it.
    """

    def __init__(self) -> None:
        self.record: Record | None = None
        self.replaced: Record | None = None
        self.build: Build | None = None
        self.lock = asyncio.Lock()
        self.turns = 0
        self.stopped = asyncio.Event()
        self.finishing = False
        self.seq = 0

    @property
    def seen(self) -> Record | None:
        """Its domain as others see it."""
        record = self.replaced or self.record
        return record if record is not None and record.built is not None else None


class Living:
    """A domain whose turn somebody has: `record` is what to work on, `note` tells what has become of it."""

    def __init__(self, record: Record, note: Callable[[Record], None]) -> None:
        self.record = record
        self._note = note
        self.changed = False
        self.cause = Cause.REQUEST
        self.vbd = ""

    def note(self, record: Record, cause: Cause = Cause.REQUEST, vbd: str = "") -> None:
        """`cause`, `vbd`: what others are told of it, as in `VmStateChanged`."""
        self._note(record)
        self.record = record
        self.changed, self.cause, self.vbd = True, cause, vbd


class VmHost:
    """`uuid`: the host's. `minimum_uptime`, `reboot_pause` (s): see `plan.reaction` and `plan.pause_before_restart`."""

    def __init__(
        self,
        uuid: str,
        bus: Bus,
        records: Records,
        counters: Counters,
        metrics: Metrics,
        make_backend: Callable[[Callable[[Stopped], None]], Backend],
        *,
        minimum_uptime: float,
        reboot_pause: float,
    ) -> None:
        self.uuid = uuid
        self.backend = make_backend(self._stopped)
        self._bus = bus
        self.records = records
        self._counters = counters
        self._metrics = metrics
        self._minimum_uptime = minimum_uptime
        self._reboot_pause = reboot_pause
        self.ops = MicroOps(uuid, bus, self.backend, records)
        self._vms: dict[str, _Vm] = {}
        self._interrupted: set[str] = set()
        """VMs that this process found in the middle of an operation and halted: its request may come again."""
        self.landed: set[tuple[str, str, str]] = set()
        """VM (uuid), VBD and VDI of moves of disks that have come about, so that it is known when the VM has ended."""
        self.counting: dict[tuple[str, str, str], bool] = {}
        """Whether a move's new disk is the one that counts, should the VM end; also of moves that have failed."""
        self._stops: dict[str, Stopped] = {}
        """What guests did by themselves and nobody has acted upon yet."""
        self._boot = boot_id()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = asyncio.Event()
        self._turns = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # ---- the service's start and end

    async def open(self) -> None:
        """Finds VMs again, finishes what a former process left half-way, in the background."""
        records = self.records.load()
        alive = [
            Expected(record.domain, record.built, record.power_state)
            for record in records
            if record.phase is Phase.BUILT and record.built is not None and record.boot == self._boot
        ]
        found = await self.backend.open(alive)
        for former in records:
            self.counting |= {(former.uuid, each.vbd.ref, each.vbd.vdi): each.landed for each in former.mirrors}
            record = former if former.uuid in found else self._without_domain(former)
            vm = self._vms[record.uuid] = _Vm()
            if record.uuid in found:
                # a guest that stands still while its disk changes goes on when that is settled
                power_state = record.power_state if record.mirrors else found[record.uuid]
                stalled = record.stalled if power_state is PowerState.PAUSED else ""  # it has gone on meanwhile
                self._set(vm, msgspec.structs.replace(record, power_state=power_state, stalled=stalled))
            elif record.phase is Phase.BUILT and record.boot == self._boot:
                self._set(vm, record)  # the backend has told how it ended
            else:
                self._set(vm, msgspec.structs.replace(record, phase=Phase.RELEASING, built=None))
                self._interrupted.add(record.uuid)
                cause = Cause.REQUEST if record.boot == self._boot else Cause.PROCESS_DIED
                self._finish_later(record.uuid, vm, cause)
        self._opened.set()
        log.info("host %s: %d of %d VMs found again", self.uuid, len(found), len(records))

    def _without_domain(self, record: Record) -> Record:
        """A disk that it went on with is the one that counts."""
        for mirror in record.mirrors:
            if mirror.landed:
                self.landed.add((record.uuid, mirror.vbd.ref, mirror.vbd.vdi))
                record = msgspec.structs.replace(record.moved(mirror), mirrors=record.mirrors)  # still to be closed
        return record

    async def publish_all(self) -> None:
        """Every VM that is here, for listeners that may have missed something."""
        for uuid, vm in list(self._vms.items()):
            if vm.seen is not None:
                await self._publish(uuid, vm, Cause.REQUEST)

    async def close(self, timeout: float) -> None:
        """Lets operations end within `timeout` seconds, then lets go of the VMs, which go on."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            log.info("host %s: operations go on in the next process of the service", self.uuid)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.backend.close()
        self._counters.close()

    # ---- requests

    async def start(self, request: VmStart) -> VmState:
        spec = request.vm
        async with self._operation("start", spec.uuid) as vm:
            record = await self._settled(spec.uuid, vm)
            if record is None:
                await self._build(vm, spec, request.paused, Cause.REQUEST)
            elif record.domain.vm != msgspec.structs.replace(spec, vbds=plan.attached(spec)):
                raise bad_power_state(spec.ref, PowerState.HALTED, record.power_state)
            elif record.power_state is PowerState.PAUSED and not request.paused:
                await self._set_power_state(vm, record, PowerState.RUNNING)
            return self._state(spec.uuid, vm, spec.ref)

    async def shutdown(self, request: VmShutdown) -> VmState:
        async with self._operation("clean_shutdown" if request.clean else "hard_shutdown", request.vm) as vm:
            record = await self._settled(request.vm, vm)
            if record is None:
                if request.vm in self._interrupted:
                    return self._state(request.vm, vm)
                raise bad_power_state(request.vm, PowerState.RUNNING, PowerState.HALTED)
            if request.clean:
                await self._ask_to_shut_down(vm, record, request.timeout)
            await self._end(vm, record, Cause.REQUEST)
            return self._state(request.vm, vm, record.domain.vm.ref)

    async def reboot(self, request: VmReboot) -> VmState:
        spec = request.vm
        async with self._operation("clean_reboot" if request.clean else "hard_reboot", spec.uuid) as vm:
            record = await self._settled(spec.uuid, vm)
            if record is None and spec.uuid not in self._interrupted:
                raise bad_power_state(spec.ref, PowerState.RUNNING, PowerState.HALTED)
            self.backend.check(spec)
            if record is not None and request.clean:
                await self._ask_to_shut_down(vm, record, request.timeout)
            await self._rebuild(vm, record, spec, Cause.REQUEST)
            return self._state(spec.uuid, vm, spec.ref)

    async def pause(self, uuid: str) -> VmState:
        return await self._change_power_state("pause", uuid, PowerState.PAUSED)

    async def unpause(self, uuid: str) -> VmState:
        return await self._change_power_state("unpause", uuid, PowerState.RUNNING)

    def query(self, uuid: str) -> VmState:
        return self._state(uuid, self._vms.get(uuid))

    def list(self) -> list[VmState]:
        return [self._state(uuid, vm) for uuid, vm in self._vms.items() if vm.seen is not None]

    async def console(self, request: ConsoleRequest) -> str:
        vm = self._vms.get(request.vm)
        if vm is None or vm.seen is None:
            raise bad_power_state(request.vm, PowerState.RUNNING, PowerState.HALTED)
        return await self.backend.console(request.vm, request.protocol)

    async def slot(self, dp: str) -> Slot:
        """The disk of a datapath, for questions about images.

        Not in the VM's turn: storage asks for it with a disk locked that a start of the VM may wait for. But what
        storage has opened and the hypervisor is about to open counts as open, so that is waited for.
        """
        uuid, device = plan.of_datapath(dp)
        vm = self._vms.get(uuid)
        if vm is not None and vm.build is not None and vm.build.opening:
            await vm.build.opened.wait()
        if self.fills(dp):
            raise ApiError("DEVICE_NOT_ATTACHED", dp)
        spec = vm.record.domain.vm if vm is not None and vm.record is not None else None
        vbds = [] if spec is None else [vbd.ref for vbd in spec.vbds if vbd.device == device]
        return Slot(uuid, device, vbds[0] if vbds else dp)

    def fills(self, dp: str) -> bool:
        """Whether it is the datapath of a disk that is being filled, and that is not the guest's yet."""
        vm = self._vms.get(plan.of_datapath(dp)[0])
        return vm is not None and vm.record is not None and any(mirror.dp == dp for mirror in vm.record.mirrors)

    def power_state(self, uuid: str) -> PowerState:
        """As it should be."""
        vm = self._vms.get(uuid)
        return PowerState.HALTED if vm is None or vm.record is None else vm.record.power_state

    @asynccontextmanager
    async def living(self, operation: str, uuid: str) -> AsyncIterator[Living]:
        """A VM's domain, for what changes it while it runs. Raises VM_BAD_POWER_STATE when there is none."""
        async with self._operation(operation, uuid) as vm:
            record = await self._settled(uuid, vm)
            if record is None:
                raise bad_power_state(uuid, PowerState.RUNNING, PowerState.HALTED)
            domain = Living(record, lambda changed: self._set(vm, changed))
            try:
                yield domain
            finally:
                if domain.changed:
                    await self._publish(uuid, vm, domain.cause, vbd=domain.vbd)

    def vms(self) -> Sequence[str]:
        """Those that have a domain."""
        return [uuid for uuid, vm in self._vms.items() if vm.seen is not None]

    # ---- parts of operations; the VM's turn is held

    async def _build(self, vm: _Vm, spec: VmSpec, paused: bool, cause: Cause) -> None:
        """A domain for a halted VM, or none and nothing left of it."""
        self.backend.check(spec)
        self._interrupted.discard(spec.uuid)
        spec = msgspec.structs.replace(spec, vbds=plan.attached(spec))
        empty = tuple(Disk(vbd) for vbd in spec.vbds)
        domain = Domain(vm=spec, domid=self._counters.next_domid(), disks=empty)
        build = vm.build = Build(Record(domain=domain, phase=Phase.BUILDING, boot=self._boot))
        try:
            await self.ops.start(build, plan.start(spec, paused))
        except BaseException:
            vm.replaced = None
            self._set(vm, build.record if build.leftover else None)
            if build.leftover:
                self._finish_later(spec.uuid, vm, cause)
            await self._publish(spec.uuid, vm, cause, spec.ref)
            raise
        finally:
            vm.build = None
        vm.replaced = None
        self._set(vm, build.record)
        await self._publish(spec.uuid, vm, cause)

    async def _end(self, vm: _Vm, record: Record, cause: Cause) -> None:
        """From here on there is no way back, and what fails is tried again in the background."""
        try:
            await self._release(vm, record)
        finally:
            await self._publish(record.uuid, vm, cause, record.domain.vm.ref)

    async def _rebuild(self, vm: _Vm, record: Record | None, spec: VmSpec, cause: Cause) -> None:
        """A new domain in place of the old one. The VM is Running for everybody until that fails."""

        async def both() -> None:
            if record is not None:
                vm.replaced = record
                try:
                    await self._release(vm, record)
                except BaseException:
                    vm.replaced = None
                    await self._publish(record.uuid, vm, cause, spec.ref)
                    raise
            await self._build(vm, spec, False, cause)

        # cancelled half-way it would leave a VM halted that nobody wanted halted
        await to_the_end(both())

    async def _release(self, vm: _Vm, record: Record) -> None:
        build = Build(record)
        try:
            await self.ops.release(build)
        except asyncio.CancelledError:
            self._set(vm, None)  # it was carried out first
            raise
        except Exception:
            self._set(vm, build.record)
            self._finish_later(record.uuid, vm, Cause.REQUEST)
            raise
        self._set(vm, None)

    async def _ask_to_shut_down(self, vm: _Vm, record: Record, timeout: float) -> None:
        ref = record.domain.vm.ref
        if record.power_state is not PowerState.RUNNING:
            raise bad_power_state(ref, PowerState.RUNNING, record.power_state)
        if not vm.stopped.is_set():
            try:
                await self.backend.request_shutdown(record.uuid)
            except ApiError:
                if not vm.stopped.is_set():  # else it has ended by itself at this moment
                    raise
        try:
            async with asyncio.timeout(timeout):
                await vm.stopped.wait()
        except TimeoutError:
            raise ApiError("VM_SHUTDOWN_TIMEOUT", ref, f"{timeout:g}") from None

    async def _change_power_state(self, operation: str, uuid: str, wanted: PowerState) -> VmState:
        other = PowerState.RUNNING if wanted is PowerState.PAUSED else PowerState.PAUSED
        async with self._operation(operation, uuid) as vm:
            record = await self._settled(uuid, vm)
            if record is None:
                raise bad_power_state(uuid, other, PowerState.HALTED)
            if record.power_state is not wanted:
                await self._set_power_state(vm, record, wanted)
            return self._state(uuid, vm)

    async def _set_power_state(self, vm: _Vm, record: Record, wanted: PowerState) -> None:
        change: Callable[[str], Awaitable[None]] = {
            PowerState.PAUSED: self.backend.pause,
            PowerState.RUNNING: self.backend.unpause,
        }[wanted]
        await change(record.uuid)
        await self._note_power_state(vm, record, wanted, Cause.REQUEST)

    async def _note_power_state(self, vm: _Vm, record: Record, state: PowerState, cause: Cause) -> None:
        changed = msgspec.structs.replace(record, power_state=state, stalled="")
        self._set(vm, changed)
        await self._publish(record.uuid, vm, cause)
        self.records.put(changed)

    async def _settled(self, uuid: str, vm: _Vm) -> Record | None:
        """The VM's living domain. One that is on its way out is first ended, or the error says why it cannot be."""
        if vm.record is not None and vm.record.phase is not Phase.BUILT:
            await self._release(vm, vm.record)
            await self._publish(uuid, vm, Cause.REQUEST)
        return vm.record

    # ---- what guests do by themselves

    def _stopped(self, stopped: Stopped) -> None:
        self._metrics.stopped(stopped.reason)
        self._stops[stopped.vm] = stopped
        vm = self._vms.get(stopped.vm)
        if vm is not None and vm.record is not None and vm.record.domain.domid == stopped.domid:
            vm.stopped.set()
        self.spawn(self._react(stopped), f"reaction to {stopped.reason} of VM {stopped.vm}")

    async def _react(self, stopped: Stopped) -> None:
        await self._opened.wait()
        async with self._turn(stopped.vm):  # the operation that built it, or ends it, has ended
            record = self._current(stopped)
            if self._stops.get(stopped.vm) == stopped:
                del self._stops[stopped.vm]
        if record is None:
            return
        uptime = time.time() - record.start_time
        action = plan.reaction(record.domain.vm, stopped.reason, uptime, self._minimum_uptime)
        cause = plan.CAUSES[stopped.reason]
        log.info("VM %s: %s after %.0f s, so %s", record.uuid, cause, uptime, action)
        if action is Reaction.RESTART:
            # outside of the VM's turn: a request does not wait for it
            await asyncio.sleep(
                plan.pause_before_restart(stopped.reason, uptime, self._minimum_uptime, self._reboot_pause)
            )
        async with self._operation(cause.value, stopped.vm) as vm:
            record = self._current(stopped)
            if record is None:
                return  # a request was faster
            try:
                match action:
                    case Reaction.HALT:
                        await self._end(vm, record, cause)
                    case Reaction.RESTART:
                        await self._rebuild(vm, record, record.domain.vm, cause)
                    case Reaction.PRESERVE:
                        await self._note_power_state(vm, record, PowerState.PAUSED, cause)
            except (ApiError, OSError) as error:
                log.error("VM %s: %s after %s failed: %s", record.uuid, action, cause, error)

    def _current(self, stopped: Stopped) -> Record | None:
        vm = self._vms.get(stopped.vm)
        record = None if vm is None else vm.record
        if record is None or record.phase is not Phase.BUILT or record.domain.domid != stopped.domid:
            return None
        return record

    def _finish_later(self, uuid: str, vm: _Vm, cause: Cause) -> None:
        if not vm.finishing:
            vm.finishing = True
            self.spawn(self._finish(uuid, cause), f"release VM {uuid}")

    async def _finish(self, uuid: str, cause: Cause) -> None:
        """Ends what could not be ended, however often that takes."""
        told = ""
        while True:
            async with self._turn(uuid) as vm:
                if vm.record is None or vm.record.phase is Phase.BUILT:
                    vm.finishing = False
                    return
                build = Build(vm.record)
                try:
                    await self.ops.release(build)
                except (ApiError, OSError) as error:
                    self._set(vm, build.record)
                    if str(error) != told:
                        told = str(error)
                        log.warning("VM %s cannot be released yet: %s", uuid, told)
                else:
                    vm.finishing = False
                    self._set(vm, None)
                    await self._publish(uuid, vm, cause, build.domain.vm.ref)
                    return
            await asyncio.sleep(RELEASE_RETRY)

    # ---- bookkeeping

    def _set(self, vm: _Vm, record: Record | None) -> None:
        before = PowerState.HALTED if vm.record is None or vm.record.built is None else vm.record.power_state
        after = PowerState.HALTED if record is None or record.built is None else record.power_state
        self._metrics.moved(before, after)
        vm.record = record
        vm.seq = self._counters.next_seq()
        stop = None if record is None else self._stops.get(record.uuid)
        if record is not None and stop is not None and stop.domid == record.domain.domid:
            vm.stopped.set()
        elif record is None:
            vm.stopped.clear()

    def _state(self, uuid: str, vm: _Vm | None, ref: str = "") -> VmState:
        record = None if vm is None else vm.seen
        if vm is None or record is None:
            if vm is not None and vm.record is not None:
                ref = vm.record.domain.vm.ref
            return VmState(uuid=uuid, ref=ref, power_state=PowerState.HALTED, seq=self._counters.seq)
        spec = record.domain.vm
        return VmState(
            uuid=uuid,
            ref=spec.ref,
            power_state=record.power_state,
            domid=record.domain.domid,
            start_time=record.start_time,
            memory_actual=record.domain.memory,
            vcpus=spec.vcpus_at_startup,
            domain_type=spec.domain_type,
            consoles=self.backend.consoles(spec),
            vbds=[vbd.ref for vbd in spec.vbds],
            disks={vbd.ref: vbd.vdi for vbd in spec.vbds if vbd.vdi},
            empty=[vbd.ref for vbd in spec.vbds if vbd.type == "CD" and not vbd.sr],
            vifs=[vif.ref for vif in spec.vifs],
            pid=record.built.pid if record.built is not None else 0,
            accel=record.built.accel if record.built is not None else "",
            stalled=next((vbd.ref for vbd in spec.vbds if vbd.device == record.stalled), ""),
            seq=vm.seq,
        )

    async def _publish(self, uuid: str, vm: _Vm, cause: Cause, ref: str = "", vbd: str = "") -> None:
        state = self._state(uuid, vm, ref)
        changed = contract.VmStateChanged(host=self.uuid, state=state, cause=cause, vbd=vbd)
        await self._bus.publish(contract.STATE, changed, host=self.uuid)

    @asynccontextmanager
    async def _operation(self, name: str, uuid: str) -> AsyncIterator[_Vm]:
        with self._metrics.operation(name):
            async with self._turn(uuid) as vm:
                yield vm

    @asynccontextmanager
    async def _turn(self, uuid: str) -> AsyncIterator[_Vm]:
        """One at a time, in the order of arrival (asyncio's locks are fair)."""
        vm = self._vms.setdefault(uuid, _Vm())
        vm.turns += 1
        self._turns += 1
        self._idle.clear()
        try:
            async with vm.lock:
                yield vm
        finally:
            vm.turns -= 1
            self._turns -= 1
            if self._turns == 0:
                self._idle.set()
            if vm.turns == 0 and vm.record is None:
                self._vms.pop(uuid, None)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())


def bad_power_state(vm: str, expected: PowerState, found: PowerState) -> ApiError:
    """`vm`: its ref, or its uuid when this host does not have the VM and so cannot know the ref."""
    return ApiError("VM_BAD_POWER_STATE", vm, expected, found)
