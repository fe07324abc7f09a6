"""The backends as the conformance suite sees them: how each is made, and how its guests are told what to do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from pool.guest.build import ARGS
from services.vm.backend import Backend, Built, Disk, Domain, Expected, OnStopped, Stopped, StopReason
from services.vm.qemu.backend import QemuBackend, Settings
from services.vm.qemu.paths import HostPaths
from services.vm.simulator.backend import SimulatorBackend
from shared.contracts.vm import PowerState, VmSpec
from tests.vm import specs


class Kind(Protocol):
    def make(self, on_stopped: OnStopped) -> Backend: ...

    def spec(self, **fields: Any) -> VmSpec: ...

    def by_itself(self, reason: StopReason) -> VmSpec:
        """A VM whose guest does that soon after its start."""
        ...

    def broken(self) -> VmSpec:
        """A VM that cannot be built."""
        ...


class SimulatorKind:
    def __init__(self, folder: Path) -> None:
        self._run = folder / "run"

    def make(self, on_stopped: OnStopped) -> Backend:
        return SimulatorBackend(self._run, on_stopped, cpus=4, memory=2**40)

    def spec(self, **fields: Any) -> VmSpec:
        return specs.vm(**fields)

    def by_itself(self, reason: StopReason) -> VmSpec:
        key = {
            StopReason.SHUTDOWN: "sim:guest-shutdown-after",
            StopReason.REBOOT: "sim:guest-reboot-after",
            StopReason.CRASH: "sim:guest-crash-after",
        }[reason]
        return specs.vm(other_config={key: "0.01"})

    def broken(self) -> VmSpec:
        return specs.vm(other_config={"sim:fails-to-start": "told so"})


class QemuKind:
    def __init__(self, folder: Path, guest_dir: Path, accel: str = "tcg", unplug_timeout: float = 5.0) -> None:
        self.paths = HostPaths(run=folder / "run", logs=folder / "logs")
        self.settings = Settings(
            binary="qemu-system-x86_64",
            accel=accel,  # type: ignore[arg-type]
            guest_dir=guest_dir,
            kvm_verdict=folder / "kvm.json",
            paths=self.paths,
            unplug_timeout=unplug_timeout,
        )

    def make(self, on_stopped: OnStopped) -> Backend:
        return QemuBackend(self.settings, on_stopped)

    def spec(self, **fields: Any) -> VmSpec:
        return specs.vm(**fields)

    def by_itself(self, reason: StopReason) -> VmSpec:
        then = {StopReason.SHUTDOWN: "poweroff", StopReason.REBOOT: "reboot", StopReason.CRASH: "panic"}[reason]
        return specs.vm(pv_args=f"{ARGS} tiny.then={then}")

    def broken(self) -> VmSpec:
        """Its kernel is a file, but none."""
        return specs.vm(pv_kernel=".lock")


@dataclass
class Bench:
    """One backend under test, and what it has told."""

    kind: Kind
    backend: Backend = field(init=False)
    stops: asyncio.Queue[Stopped] = field(default_factory=asyncio.Queue)
    built: dict[int, tuple[Domain, Built]] = field(default_factory=dict)
    _domids: int = 0

    def __post_init__(self) -> None:
        self.backend = self.kind.make(self.stops.put_nowait)

    async def create(self, vm: VmSpec, disks: Sequence[Disk] = ()) -> Domain:
        self._domids += 1
        domain = Domain(vm=vm, domid=self._domids, disks=tuple(disks))
        self.built[domain.domid] = (domain, await self.backend.create(domain))
        return domain

    async def start(self, vm: VmSpec, disks: Sequence[Disk] = ()) -> Domain:
        domain = await self.create(vm, disks)
        await self.backend.unpause(vm.uuid)
        return domain

    async def next_stop(self, timeout: float = 60.0) -> Stopped:
        return await asyncio.wait_for(self.stops.get(), timeout)

    async def reopen(self, power_state: PowerState, *, but: Sequence[Domain] = ()) -> dict[str, PowerState]:
        """As if the service had been restarted. `but`: domains that no record knows."""
        await self.backend.close()
        self.backend = self.kind.make(self.stops.put_nowait)
        expected = [Expected(domain, built, power_state) for domain, built in self.built.values() if domain not in but]
        # what is on disk in between
        expected = msgspec.json.decode(msgspec.json.encode(expected), type=list[Expected])
        return await self.backend.open(expected)

    async def end(self) -> None:
        for domid in range(1, self._domids + 1):  # also those whose creation failed
            domain = self.built[domid][0] if domid in self.built else Domain(vm=specs.vm(), domid=domid)
            await self.backend.destroy(domain)
        await self.backend.close()
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                self.stops.get_nowait()
