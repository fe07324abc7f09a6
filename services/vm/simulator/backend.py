"""Domains that are only bookkeeping.

A VM's `other_config` tells what its guest does, for tests and demonstrations:

    sim:guest-shutdown-after    seconds after its start it powers off
    sim:guest-reboot-after      ... reboots (each time it was started)
    sim:guest-crash-after       ... crashes
    sim:process-dies-after      ... its (imagined) emulator is killed
    sim:ignores-shutdown        "true": it does not react to the power button
    sim:fails-to-start          the text of a FAILED_TO_START_EMULATOR
    sim:keeps-devices           "true": it does not let go of devices
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.vm import checks
from services.vm.backend import Built, DiskNews, Domain, Expected, OnStopped, Stopped, StopReason
from services.vm.console import Console
from services.vm.simulator.console import SimulatedTerminal
from services.vm.simulator.disks import SimulatedDevices, SimulatedDisks
from shared.contracts.vm import ConsoleInfo, HostCapabilities, PowerState, VmSpec
from shared.errors import ApiError

MEMORY_OVERHEAD = 128 * 2**20
"""Bytes that a simulated host keeps for itself."""
POWER_OFF_TIME = 0.001
"""Seconds from the power button to the end: later than the acknowledgement, as on a real machine."""

_BY_ITSELF = {
    "sim:guest-shutdown-after": StopReason.SHUTDOWN,
    "sim:guest-reboot-after": StopReason.REBOOT,
    "sim:guest-crash-after": StopReason.CRASH,
    "sim:process-dies-after": StopReason.DIED,
}


_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)


@dataclass(eq=False)
class _Domain:
    domain: Domain
    devices: SimulatedDevices
    running: bool = False
    stopped: StopReason | None = None
    timers: tuple[asyncio.TimerHandle, ...] = ()
    console: Console | None = None


class SimulatorBackend:
    """`run`: folder for console sockets, made when the first is opened. `cpus`, `memory`: of the host it plays."""

    name = "simulator"

    def __init__(self, run: Path, on_stopped: OnStopped, *, cpus: int, memory: int) -> None:
        self._run = run
        self._on_stopped = on_stopped
        self._cpus = cpus
        self._memory = memory
        self._used = MEMORY_OVERHEAD
        self._domains: dict[str, _Domain] = {}
        self.disks = SimulatedDisks(lambda vm: self._domains[vm].devices if vm in self._domains else None)
        self.disk_news = DiskNews()

    async def open(self, expected: Sequence[Expected]) -> dict[str, PowerState]:
        """All of them: nothing can have happened to them. What they do by themselves, they do from now on."""
        for domain, _, power_state in expected:
            self._add(domain)
            self._domains[domain.vm.uuid].devices.recall()
            if power_state is PowerState.RUNNING:
                await self.unpause(domain.vm.uuid)
        return {domain.vm.uuid: power_state for domain, _, power_state in expected}

    async def close(self) -> None:
        for found in list(self._domains.values()):
            await self._drop(found)

    async def capabilities(self) -> HostCapabilities:
        return HostCapabilities(
            backend=self.name,
            accel="simulated",
            version="1",
            cpu_count=self._cpus,
            cpu_model="Simulated CPU",
            cpu_vendor="GenuineSimulation",
            cpu_speed=2000,
            cpu_flags="fpu hypervisor lm nx",
            memory_total=self._memory,
            memory_overhead=MEMORY_OVERHEAD,
            capabilities=["hvm-3.0-x86_32", "hvm-3.0-x86_64"],
        )

    def check(self, vm: VmSpec) -> None:
        checks.check(vm)
        for key in _BY_ITSELF.keys() & vm.other_config.keys():
            if not _SECONDS.fullmatch(vm.other_config[key]):
                raise ApiError("INVALID_VALUE", f"other_config:{key}", vm.other_config[key])

    async def create(self, domain: Domain) -> Built:
        failure = domain.vm.other_config.get("sim:fails-to-start")
        if failure is not None:
            raise ApiError("FAILED_TO_START_EMULATOR", domain.vm.ref, "simulator", failure)
        if self._used + domain.memory > self._memory:
            raise ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", domain.memory, self._memory - self._used)
        self._add(domain)
        return Built(accel="simulated")

    async def unpause(self, vm: str) -> None:
        found = self._require(vm)
        if found.stopped is not None:
            raise ApiError("INTERNAL_ERROR", f"the guest of VM {vm} has stopped for good")
        if not found.running:
            found.running = True
            self._arm(found)

    async def pause(self, vm: str) -> None:
        found = self._require(vm)
        found.running = False
        self._disarm(found)

    async def request_shutdown(self, vm: str) -> None:
        found = self._require(vm)
        if found.domain.vm.other_config.get("sim:ignores-shutdown") != "true":
            found.timers += (
                asyncio.get_running_loop().call_later(POWER_OFF_TIME, self._stop, found, StopReason.SHUTDOWN),
            )

    async def destroy(self, domain: Domain) -> None:
        found = self._domains.get(domain.vm.uuid)
        if found is not None and found.domain.domid == domain.domid:
            await self._drop(found)
        disks_file(self._run, domain).unlink(missing_ok=True)

    def consoles(self, vm: VmSpec) -> list[ConsoleInfo]:
        return [ConsoleInfo(protocol="vt100")]

    async def console(self, vm: str, protocol: str) -> str:
        found = self._require(vm)
        if protocol != "vt100":
            raise ApiError("INVALID_VALUE", "protocol", protocol)
        if found.console is None:
            self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
            terminal = SimulatedTerminal(found.domain.vm.name_label)
            found.console = Console(self._run / f"{found.domain.domid}.console", terminal.recent, terminal.typed)
            terminal.output = found.console.output
            await found.console.open()
        return str(found.console.path)

    # ----

    def _require(self, vm: str) -> _Domain:
        if vm not in self._domains:
            raise ApiError("INTERNAL_ERROR", f"VM {vm} has no domain here")
        return self._domains[vm]

    def _add(self, domain: Domain) -> None:
        devices = SimulatedDevices(domain, disks_file(self._run, domain))
        self._domains[domain.vm.uuid] = _Domain(domain, devices)
        self._used += domain.memory

    async def _drop(self, found: _Domain) -> None:
        self._disarm(found)
        del self._domains[found.domain.vm.uuid]
        self._used -= found.domain.memory
        await found.devices.close()
        if found.console is not None:
            await found.console.close()

    def _arm(self, found: _Domain) -> None:
        loop = asyncio.get_running_loop()
        configured = found.domain.vm.other_config
        found.timers = tuple(
            loop.call_later(float(configured[key]), self._stop, found, reason)
            for key, reason in _BY_ITSELF.items()
            if key in configured
        )

    def _disarm(self, found: _Domain) -> None:
        for timer in found.timers:
            timer.cancel()
        found.timers = ()

    def _stop(self, found: _Domain, reason: StopReason) -> None:
        self._disarm(found)
        if found.stopped is None:
            found.stopped, found.running = reason, False
            self._on_stopped(Stopped(found.domain.vm.uuid, found.domain.domid, reason))


def disks_file(run: Path, domain: Domain) -> Path:
    return run / f"{domain.domid}.disks"
