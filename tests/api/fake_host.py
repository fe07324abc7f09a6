"""A host's services as the contracts describe them, in memory: VMs, disks and interfaces are entries of dictionaries.

Tests interfere by name of the method: `fail("vm.start", error)`, `hold("vm.start")`, and by what guests do themselves.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shared.bus.context import current
from shared.bus.contract import Empty, Method
from shared.bus.endpoint import Endpoint
from shared.bus.memory import MemoryBroker
from shared.bus.timing import Timing
from shared.contracts import motion, network, storage, transfer, vm, vm_disks
from shared.contracts.ha import HEARTBEAT, Heartbeat
from shared.contracts.vm import Cause, PowerState
from shared.errors import ApiError

MIB = 1 << 20
OVERHEAD = 130 * MIB
"""What a VM takes on the host beside its memory, as the API counts it for one virtual CPU."""


class Gate:
    """A place where a call stands until the test lets it go. `reached`: it has arrived."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._opened = asyncio.Event()

    def open(self) -> None:
        self._opened.set()

    async def __call__(self) -> None:
        self.reached.set()
        try:
            await self._opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


Act = Callable[[], Awaitable[None]]


@dataclass
class Disks:
    """The medium behind SRs, which all hosts share. `open`: location to the host that has the disk open."""

    size: int = 1 << 40
    srs: dict[str, dict[str, storage.VdiInfo]] = field(default_factory=dict)
    open: dict[str, str] = field(default_factory=dict)
    content: dict[str, str] = field(default_factory=dict)
    """Location to what copies pass on: anything, "" at first."""
    probed: storage.SrProbed = field(default_factory=storage.SrProbed)
    """What probes find."""
    asked: list[Any] = field(default_factory=list)
    """Requests that leave no other trace."""


FEATURES = (
    *("SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN", "SR_UPDATE", "VDI_CREATE", "VDI_DELETE"),
    *("VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE", "VDI_INTRODUCE", "VDI_UPDATE"),
)
DRIVER = storage.DriverInfo(
    type="fake",
    name="fake",
    description="",
    vendor="",
    copyright="",
    version="1",
    required_api_version="5.0",
    features=dict.fromkeys(FEATURES, 1),
    configuration={},
)


class FakeHost:
    def __init__(self, broker: MemoryBroker, uuid: str, disks: Disks, memory: int, timing: Timing) -> None:
        self.uuid = uuid
        self.memory = memory
        self.disks = disks
        self.vms: dict[str, vm.VmState] = {}
        self.attached: set[str] = set()
        self.drivers = [DRIVER]
        self.interfaces: list[network.Interface] = []
        self.served: list[str] = []
        """Methods in the order in which they were called."""
        self._broker = broker
        self._timing = timing
        self._acts: dict[str, deque[Act]] = {}
        self._seq = 0
        self._boot = ""
        self.datapaths: dict[str, storage.DiskOpen] = {}
        self._media: dict[str, str] = {}
        """Locations by VBD."""
        self.remembered: set[str] = set()
        """VMs (uuids) that have ended, and of which it knows which disks they had."""
        self._bus: Endpoint | None = None

    @property
    def bus(self) -> Endpoint:
        assert self._bus is not None, "the host is down"
        return self._bus

    # ---- up and down

    async def up(self) -> None:
        """Its services start; VMs that are there stay."""
        self._bus = await self._broker.connect(self.uuid, self._timing)
        handlers: list[tuple[Method[Any, Any], Callable[[Any], Awaitable[Any]]]] = [
            (vm.CAPABILITIES, self._capabilities),
            (vm.START, self._start),
            (vm.SHUTDOWN, self._shutdown),
            (vm.REBOOT, self._reboot),
            (vm.PAUSE, lambda request: self._set_state(request.vm, PowerState.PAUSED)),
            (vm.UNPAUSE, lambda request: self._set_state(request.vm, PowerState.RUNNING)),
            (vm.QUERY, self._query),
            (vm.LIST, self._list),
            (vm_disks.VBD_PLUG, self._vbd_plug),
            (vm_disks.VBD_INSERT, self._vbd_plug),
            (vm_disks.VBD_UNPLUG, self._vbd_unplug),
            (vm_disks.VBD_EJECT, self._vbd_eject),
            (vm_disks.VBD_MOVE, self._vbd_move),
            (vm_disks.VBD_MOVE_END, self._vbd_move_end),
            (storage.OPEN, self._open),
            (storage.DRIVERS, self._drivers),
            (storage.SR_CREATE, self._sr_create),
            (storage.SR_ATTACH, self._sr_attach),
            (storage.SR_DETACH, self._sr_detach),
            (storage.SR_DESTROY, self._sr_destroy),
            (storage.SR_SCAN, self._sr_scan),
            (storage.SR_STAT, self._sr_stat),
            (storage.SR_SET_NAME, self._nothing),
            (storage.SR_PROBE, self._sr_probe),
            (storage.CLOSE, self._close),
            (storage.DATAPATHS, self._datapaths),
            (storage.FENCE, self._fence),
            (storage.VDI_CREATE, self._vdi_create),
            (storage.VDI_DESTROY, self._vdi_destroy),
            (storage.VDI_CLONE, self._vdi_clone),
            (storage.VDI_COPY, self._vdi_clone),
            (storage.VDI_RESIZE, self._vdi_resize),
            (storage.VDI_STAT, self._vdi_stat),
            (storage.VDI_INTRODUCE, self._vdi_introduce),
            (storage.VDI_DESCRIBE, self._vdi_describe),
            (storage.VDI_REVERT, self._vdi_revert),
            (storage.VDI_ENABLE_CBT, lambda request: self._set_disk(request, cbt_enabled=True)),
            (storage.VDI_DISABLE_CBT, lambda request: self._set_disk(request, cbt_enabled=False)),
            (storage.VDI_DATA_DESTROY, lambda request: self._set_disk(request, type="cbt_metadata")),
            (storage.VDI_CHANGED_BLOCKS, self._changed_blocks),
            (storage.VDI_GENERATE_CONFIG, self._generate_config),
            (storage.VDI_SET_PERSISTENT, self._nothing),
            (storage.VDI_EPOCH, self._epoch),
            (transfer.COPY, self._copy),
            (motion.RECEIVE_END, self._nothing),
            (transfer.CHECKSUM, self._checksum),
            (network.SCAN, self._scan_interfaces),
            (network.BRIDGE_UP, self._nothing),
            (network.BRIDGE_DOWN, self._nothing),
            (network.VIFS_PLUG, self._vifs_plug),
            (network.VIFS_UNPLUG, self._nothing),
        ]
        for method, handler in handlers:
            await self._bus.serve(method, self._wrapped(method, handler), host=self.uuid)
        for service in ("vm", "storage", "network"):
            await self._bus.start_consuming(service, host=self.uuid)
        self._boot = str(uuid.uuid4())
        await self.heartbeat()

    async def down(self) -> None:
        """Its services are killed; VMs go on."""
        if self._bus is not None:
            await self._bus.abandon()
            self._bus = None

    async def heartbeat(self) -> None:
        beat = Heartbeat(host=self.uuid, boot=self._boot, seq=self._next(), interval=1.0, time=time.time())
        await self.bus.publish(HEARTBEAT, beat, uuid=self.uuid)

    # ---- interference

    def then(self, method: str, act: Act) -> None:
        """The next call of the method runs `act` first; several acts serve several calls."""
        self._acts.setdefault(method, deque()).append(act)

    def fail(self, method: str, error: Exception) -> None:
        async def act() -> None:
            raise error

        self.then(method, act)

    def hold(self, method: str) -> Gate:
        gate = Gate()
        self.then(method, gate)
        return gate

    def after(self, method: str) -> Gate:
        """The next call of the method does its work and stands before it answers."""
        gate = Gate()
        self._acts.setdefault(f"after {method}", deque()).append(gate)
        return gate

    def undisturbed(self) -> None:
        """What was arranged and has not happened will not."""
        self._acts.clear()

    def _wrapped(self, method: Method[Any, Any], handler: Callable[[Any], Awaitable[Any]]) -> Any:
        async def handle(request: Any) -> Any:
            self.served.append(method.key)
            await self._act(method.key)
            answer = await handler(request)
            await self._act(f"after {method.key}")
            return answer

        return handle

    async def _act(self, name: str) -> None:
        waiting = self._acts.get(name)
        if waiting:
            await waiting.popleft()()

    # ---- what guests do

    async def guest_halts(self, name: str, cause: Cause = Cause.GUEST_SHUTDOWN) -> None:
        self.vms.pop(name, None)
        self._close_disks(name)
        await self._tell(self._state(name), cause)

    async def guest_reboots(self, name: str) -> None:
        state = self.vms[name]
        await self._change(state, Cause.GUEST_REBOOT, domid=self._next())

    async def disk_full(self, name: str, vbd: str) -> None:
        await self._change(self.vms[name], Cause.DISK_FULL, power_state=PowerState.PAUSED, stalled=vbd)

    async def guest_ejects(self, name: str, vbd: str) -> None:
        disks = {other: disk for other, disk in self.vms[name].disks.items() if other != vbd}
        await self._change(self.vms[name], disks=disks, empty=[vbd])

    async def disk_has_room(self, name: str) -> None:
        await self._change(self.vms[name], Cause.DISK_ROOM, power_state=PowerState.RUNNING, stalled="")

    async def disk_fails(self, name: str, vbd: str) -> None:
        state = self.vms[name] = msgspec.structs.replace(self.vms[name], seq=self._next())
        await self._tell(state, Cause.DISK_ERROR, vbd)

    @property
    def latest_seq(self) -> int:
        """The number of the newest state that it has told."""
        return self._seq

    async def say(self, state: vm.VmState, cause: Cause) -> None:
        """Tells a state as it is, old or new."""
        await self._tell(state, cause)

    def forget_history(self, name: str, **fields: Any) -> None:
        """The VM changed while nobody could be told."""
        self.vms[name] = msgspec.structs.replace(self.vms[name], seq=self._next(), **fields)

    # ---- vm

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _state(self, name: str) -> vm.VmState:
        halted = vm.VmState(uuid=name, ref="", power_state=PowerState.HALTED, seq=self._next())
        return self.vms.get(name, halted)

    async def _tell(self, state: vm.VmState, cause: Cause, vbd: str = "") -> None:
        changed = vm.VmStateChanged(host=self.uuid, state=state, cause=cause, vbd=vbd)
        await self.bus.publish(vm.STATE, changed, host=self.uuid)

    async def _change(self, state: vm.VmState, cause: Cause = Cause.REQUEST, **fields: Any) -> vm.VmState:
        state = msgspec.structs.replace(state, seq=self._next(), **fields)
        self.vms[state.uuid] = state
        await self._tell(state, cause)
        return state

    async def _capabilities(self, _: Empty) -> vm.HostCapabilities:
        return vm.HostCapabilities(
            backend="simulator",
            accel="simulated",
            version="0",
            cpu_count=4,
            cpu_model="fake",
            cpu_vendor="fake",
            cpu_speed=1000,
            cpu_flags="",
            memory_total=self.memory,
            memory_overhead=0,
            capabilities=["hvm-3.0-x86_64", "pv"],
        )

    def used(self) -> int:
        return sum(state.memory_actual + OVERHEAD for state in self.vms.values())

    async def _start(self, request: vm.VmStart) -> vm.VmState:
        spec = request.vm
        if spec.uuid in self.vms:
            raise ApiError("VM_BAD_POWER_STATE", spec.ref, "Halted", str(self.vms[spec.uuid].power_state))
        needed = spec.memory_dynamic_max + OVERHEAD
        if needed > self.memory - self.used():
            raise ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", needed, self.memory - self.used())
        locations = [vbd.location for vbd in spec.vbds if vbd.location]
        if any(location in self.disks.open for location in locations):
            raise ApiError("VDI_IN_USE", "", "attach")
        for vbd in spec.vbds:
            if vbd.location:
                self._disk(vbd.sr, vbd.location)
                self.disks.open[vbd.location] = spec.uuid
                self._media[vbd.ref] = vbd.location
        state = vm.VmState(
            uuid=spec.uuid,
            ref=spec.ref,
            power_state=PowerState.PAUSED if request.paused else PowerState.RUNNING,
            domid=self._next(),
            start_time=time.time(),
            memory_actual=spec.memory_dynamic_max,
            vcpus=spec.vcpus_at_startup,
            domain_type=spec.domain_type,
            consoles=[vm.ConsoleInfo(protocol="vt100")],
            vbds=[vbd.ref for vbd in spec.vbds if vbd.location],
            vifs=[vif.ref for vif in spec.vifs],
        )
        return await self._change(state)

    def _present(self, name: str) -> vm.VmState:
        state = self.vms.get(name)
        if state is None:
            raise ApiError("VM_BAD_POWER_STATE", name, "Running", "Halted")
        return state

    async def _shutdown(self, request: vm.VmShutdown) -> vm.VmState:
        self._present(request.vm)
        if request.clean:
            await self._act("guest.shutdown")
        del self.vms[request.vm]
        self._close_disks(request.vm)
        state = self._state(request.vm)
        await self._tell(state, Cause.REQUEST)
        return state

    async def _vbd_plug(self, request: vm_disks.VbdPlug) -> vm.VmState:
        state, vbd = self._present(request.vm), request.vbd
        if vbd.location:
            self._disk(vbd.sr, vbd.location)
            if self.disks.open.setdefault(vbd.location, request.vm) != request.vm:
                raise ApiError("VDI_IN_USE", vbd.location)
            self._media[vbd.ref] = vbd.location
        vbds = [*(ref for ref in state.vbds if ref != vbd.ref), vbd.ref]
        return await self._change(state, vbds=vbds, disks={**state.disks, vbd.ref: vbd.vdi} if vbd.vdi else state.disks)

    async def _vbd_unplug(self, request: vm_disks.VbdUnplug) -> vm.VmState:
        state = await self._vbd_eject(request)
        return await self._change(state, vbds=[ref for ref in state.vbds if ref != request.vbd])

    async def _vbd_eject(self, request: vm_disks.VbdUnplug) -> vm.VmState:
        state = self._present(request.vm)
        self.disks.open.pop(self._media.pop(request.vbd, ""), None)
        return await self._change(
            state, disks={vbd: disk for vbd, disk in state.disks.items() if vbd != request.vbd}, empty=[request.vbd]
        )

    async def _vbd_move(self, request: vm_disks.VbdMove) -> vm.VmState:
        state, vbd = self._present(request.vm), request.vbd
        self._disk(vbd.sr, vbd.location)
        former = self._media[vbd.ref]
        self.disks.content[vbd.location] = self.disks.content.get(former, "")
        del self.disks.open[former]
        self.disks.open[vbd.location] = request.vm
        self._media[vbd.ref] = vbd.location
        return await self._change(state, disks={**state.disks, vbd.ref: vbd.vdi})

    async def _vbd_move_end(self, request: vm_disks.VbdMove) -> vm_disks.VbdMoved:
        moved = self._media.get(request.vbd.ref) == request.vbd.location
        return vm_disks.VbdMoved(moved=moved, known=request.vm in self.vms or request.vm in self.remembered)

    async def _open(self, request: storage.Open) -> storage.Opened:
        self.disks.asked.append(request)
        self.datapaths |= {disk.dp: disk for disk in request.disks}
        return storage.Opened(
            backends=[
                storage.Backend(
                    dp=disk.dp, kind="block", path=f"/dev/fake/{disk.location}", format="raw", writable=True
                )
                for disk in request.disks
            ]
        )

    async def _close(self, request: storage.Close) -> Empty:
        for dp in request.dps:
            self.datapaths.pop(dp, None)
        return Empty()

    def _close_disks(self, name: str) -> None:
        for location in [location for location, user in self.disks.open.items() if user == name]:
            del self.disks.open[location]

    async def _reboot(self, request: vm.VmReboot) -> vm.VmState:
        state = self._present(request.vm.uuid)
        if request.clean:
            await self._act("guest.shutdown")
        return await self._change(state, power_state=PowerState.RUNNING, domid=self._next())

    async def _set_state(self, name: str, power_state: PowerState) -> vm.VmState:
        return await self._change(self._present(name), power_state=power_state, stalled="")

    async def _query(self, request: vm.VmId) -> vm.VmState:
        return self._state(request.vm)

    async def _list(self, _: Empty) -> vm.VmList:
        return vm.VmList(vms=list(self.vms.values()))

    # ---- storage

    async def _drivers(self, _: Empty) -> storage.Drivers:
        return storage.Drivers(drivers=self.drivers)

    def _sr(self, sr: str) -> dict[str, storage.VdiInfo]:
        if sr not in self.attached:
            raise ApiError("SR_NOT_ATTACHED", sr)
        return self.disks.srs[sr]

    def _disk(self, sr: str, location: str) -> storage.VdiInfo:
        info = self._sr(sr).get(location)
        if info is None:
            raise ApiError("VDI_MISSING", sr, location)
        return info

    def _stat(self, sr: str) -> storage.SrStat:
        allocated = sum(info.virtual_size for info in self.disks.srs[sr].values())
        return storage.SrStat(physical_size=self.disks.size, physical_utilisation=0, virtual_allocation=allocated)

    async def _nothing(self, _: Any) -> Empty:
        return Empty()

    async def _datapaths(self, _: Empty) -> storage.Datapaths:
        return storage.Datapaths(
            datapaths=[
                storage.Datapath(
                    dp=disk.dp, sr=disk.sr, location=disk.location, state="activated", writable=disk.writable
                )
                for disk in self.datapaths.values()
            ]
        )

    async def _fence(self, request: storage.Fence) -> storage.Fenced:
        self.disks.open = {disk: host for disk, host in self.disks.open.items() if host != request.host}
        return storage.Fenced(leases=0)

    async def _sr_create(self, request: storage.SrCreate) -> storage.SrCreated:
        self.disks.asked.append(request)
        self.disks.srs[request.sr] = {}
        return storage.SrCreated(device_config=request.device_config)

    async def _sr_probe(self, request: storage.SrProbe) -> storage.SrProbed:
        self.disks.asked.append(request)
        return self.disks.probed

    async def _sr_stat(self, request: storage.SrRef) -> storage.SrStat:
        self._sr(request.sr)
        return self._stat(request.sr)

    async def _sr_attach(self, request: storage.SrAttach) -> storage.SrStat:
        self.disks.srs.setdefault(request.sr, {})
        self.attached.add(request.sr)
        return self._stat(request.sr)

    async def _sr_detach(self, request: storage.SrRef) -> Empty:
        self.attached.discard(request.sr)
        return Empty()

    async def _sr_destroy(self, request: storage.SrRef) -> Empty:
        if self._sr(request.sr):
            raise ApiError("SR_NOT_EMPTY")
        del self.disks.srs[request.sr]
        self.attached.discard(request.sr)
        return Empty()

    async def _sr_scan(self, request: storage.SrRef) -> storage.SrScan:
        return storage.SrScan(disks=list(self._sr(request.sr).values()), stat=self._stat(request.sr))

    def _made(self, sr: str, request: storage.VdiCreate | storage.VdiClone, size: int) -> storage.VdiInfo:
        if self._stat(sr).virtual_allocation + size > self.disks.size:
            raise ApiError("SR_FULL", size, self.disks.size)
        info = storage.VdiInfo(
            uuid=request.uuid,
            location=request.uuid,
            virtual_size=size,
            physical_utilisation=0,
            name_label=request.name_label,
        )
        self._sr(sr)[info.location] = info
        return info

    async def _vdi_create(self, request: storage.VdiCreate) -> storage.VdiInfo:
        self._sr(request.sr)
        made = self._made(request.sr, request, request.virtual_size)
        return self._put(request.sr, made, sm_config=request.sm_config)

    async def _vdi_clone(self, request: storage.VdiClone) -> storage.VdiInfo:
        return self._made(request.sr, request, self._disk(request.sr, request.location).virtual_size)

    async def _vdi_destroy(self, request: storage.VdiRef) -> Empty:
        self._disk(request.sr, request.location)
        if request.location in self.disks.open:
            raise ApiError("VDI_IN_USE", "", "destroy")
        del self._sr(request.sr)[request.location]
        return Empty()

    def _put(self, sr: str, info: storage.VdiInfo, **fields: Any) -> storage.VdiInfo:
        self._sr(sr)[info.location] = info = msgspec.structs.replace(info, **fields)
        return info

    async def _vdi_stat(self, request: storage.VdiRef) -> storage.VdiInfo:
        return self._disk(request.sr, request.location)

    async def _vdi_introduce(self, request: storage.VdiIntroduce) -> storage.VdiInfo:
        return self._disk(request.sr, request.location)

    async def _vdi_describe(self, request: storage.VdiDescription) -> Empty:
        info = self._disk(request.sr, request.location)
        names = {"name_label": request.name_label, "name_description": request.name_description}
        self._put(request.sr, info, **{name: text for name, text in names.items() if text is not None})
        return Empty()

    async def _vdi_revert(self, request: storage.VdiPair) -> storage.VdiInfo:
        size = self._disk(request.sr, request.location).virtual_size
        return self._put(request.sr, self._disk(request.sr, request.other), virtual_size=size)

    async def _set_disk(self, request: storage.VdiRef, **fields: Any) -> Empty:
        self._put(request.sr, self._disk(request.sr, request.location), **fields)
        return Empty()

    async def _changed_blocks(self, request: storage.VdiPair) -> storage.ChangedBlocks:
        return storage.ChangedBlocks(bitmap=f"{request.location}>{request.other}", granularity=1 << 16)

    async def _generate_config(self, request: storage.VdiRef) -> storage.StaticConfig:
        return storage.StaticConfig(config=f"{self.uuid} {request.location}")

    async def _epoch(self, request: storage.Epoch) -> Empty:
        self.disks.asked.append(request)
        return Empty()

    async def _copy(self, request: transfer.Copy) -> transfer.Moved:
        self._disk(request.sr, request.location)
        if not request.to_host:
            self._disk(request.to_sr, request.to_location)
        self.disks.asked.append(request)
        self.disks.content[request.to_location] = self.disks.content.get(request.location, "")
        return transfer.Moved(stream=0, data=0)

    async def _checksum(self, request: transfer.Checksum) -> transfer.Moved:
        self._disk(request.sr, request.location)
        return transfer.Moved(stream=0, data=0, md5=self.disks.content.get(request.location, ""))

    async def _vdi_resize(self, request: storage.VdiResize) -> storage.VdiInfo:
        info = self._disk(request.sr, request.location)
        if request.virtual_size < info.virtual_size:
            raise ApiError("SR_BACKEND_FAILURE_79", "", "a disk cannot shrink", "")
        return self._put(request.sr, info, virtual_size=request.virtual_size)

    # ---- network

    async def _scan_interfaces(self, _: Empty) -> network.Interfaces:
        return network.Interfaces(interfaces=self.interfaces)

    async def _vifs_plug(self, request: network.VifsPlug) -> network.VifBackends:
        backends = [network.VifBackend(vm=vif.vm, device=vif.device, kind="none") for vif in request.vifs]
        return network.VifBackends(vifs=backends)


def working_for() -> str:
    """The task for which the handler that calls this works."""
    return current.get().task
