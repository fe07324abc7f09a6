"""The bus side of the service: which request goes to which host."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from services.vm.backend import Backend, Stopped
from services.vm.disk_changes import DiskChanges
from services.vm.disk_moves import DiskMoves
from services.vm.disk_requests import DiskRequests
from services.vm.disk_trouble import DiskTrouble
from services.vm.host import VmHost
from services.vm.metrics import Metrics
from services.vm.options import Options, guest_folder, host_folder_name, private_folder, run_folder
from services.vm.qemu.backend import QemuBackend, Settings
from services.vm.qemu.paths import HostPaths
from services.vm.records import Counters, Records
from services.vm.simulator.backend import SimulatorBackend
from shared.bus.contract import Empty
from shared.config import HostConfig
from shared.contracts import vm as contract
from shared.contracts import vm_disks
from shared.contracts.vm import ConsoleEndpoint, ConsoleRequest, HostCapabilities, VmId, VmList, VmState
from shared.service import Service

log = logging.getLogger("vm")

CLOSE_TIMEOUT = 8.0
"""Seconds that operations get to end when the service stops."""
SIMULATED_REBOOT_DELAY = 0.0


async def setup(service: Service) -> None:
    options = service.options(Options)
    run = run_folder(options, service.config)
    metrics = Metrics(service.registry)
    hosts = [_host(service, options, run, metrics, config) for config in service.hosts]
    await asyncio.gather(*(host.open() for host in hosts))
    for host in hosts:
        await _serve(service, host)
        service.on_stop(lambda host=host: host.close(CLOSE_TIMEOUT))  # type: ignore[misc]

    async def publish_all() -> None:
        for host in hosts:
            await host.publish_all()

    service.bus.on_reconnect(publish_all)
    await publish_all()
    service.details["hosts"] = ", ".join(
        f"{sum(host.backend.name == name for host in hosts)} {name}"
        for name in sorted({host.backend.name for host in hosts})
    )
    service.spawn(_choose_accelerator(service, hosts), "choose accelerator")


def chosen_backend(options: Options, host: HostConfig) -> str:
    if host.simulated or options.backend == "simulator":
        return "simulator"
    if options.backend == "qemu" or shutil.which(options.qemu_binary) is not None:
        return "qemu"
    log.warning("%s is not installed: host %s simulates its VMs", options.qemu_binary, host.name)
    return "simulator"


def host_paths(state: Path, run: Path, host: HostConfig) -> HostPaths:
    return HostPaths(run=run / host_folder_name(host), logs=host_state(state, host) / "logs")


def host_state(state: Path, host: HostConfig) -> Path:
    return state.absolute() / "hosts" / host.uuid


def _host(service: Service, options: Options, run: Path, metrics: Metrics, config: HostConfig) -> VmHost:
    state = private_folder(host_state(service.state_dir, config))
    simulated = chosen_backend(options, config) == "simulator"
    paths = host_paths(service.state_dir, run, config)

    def make(on_stopped: Callable[[Stopped], None]) -> Backend:
        if simulated:
            return SimulatorBackend(paths.run, on_stopped, cpus=options.simulated_cpus, memory=options.simulated_memory)
        settings = Settings(
            binary=options.qemu_binary,
            accel=options.accel,
            guest_dir=guest_folder(options),
            kvm_verdict=Path(options.kvm_verdict or service.state_dir / "kvm.json").absolute(),
            paths=paths,
            unplug_timeout=options.unplug_timeout,
        )
        return QemuBackend(settings, on_stopped)

    return VmHost(
        config.uuid,
        service.bus,
        Records(state / "vms"),
        Counters(state / "counters"),
        metrics,
        make,
        minimum_uptime=SIMULATED_REBOOT_DELAY if simulated else options.minimum_reboot_delay,
        reboot_pause=options.reboot_pause,
    )


async def _choose_accelerator(service: Service, hosts: list[VmHost]) -> None:
    """Takes seconds where KVM is broken: better now than when the first VM waits for it."""
    for host in hosts:
        if isinstance(host.backend, QemuBackend):
            service.details["accelerator"] = await host.backend.why_accelerator()


async def _serve(service: Service, host: VmHost) -> None:
    async def capabilities(_: Empty) -> HostCapabilities:
        return await host.backend.capabilities()

    async def pause(request: VmId) -> VmState:
        return await host.pause(request.vm)

    async def unpause(request: VmId) -> VmState:
        return await host.unpause(request.vm)

    async def query(request: VmId) -> VmState:
        return host.query(request.vm)

    async def listed(_: Empty) -> VmList:
        return VmList(vms=host.list())

    async def console(request: ConsoleRequest) -> ConsoleEndpoint:
        return ConsoleEndpoint(path=await host.console(request))

    await service.serve(contract.CAPABILITIES, capabilities, host=host.uuid)
    await service.serve(contract.START, host.start, host=host.uuid)
    await service.serve(contract.SHUTDOWN, host.shutdown, host=host.uuid)
    await service.serve(contract.REBOOT, host.reboot, host=host.uuid)
    await service.serve(contract.PAUSE, pause, host=host.uuid)
    await service.serve(contract.UNPAUSE, unpause, host=host.uuid)
    await service.serve(contract.QUERY, query, host=host.uuid)
    await service.serve(contract.LIST, listed, host=host.uuid)
    await service.serve(contract.CONSOLE, console, host=host.uuid)
    await DiskRequests(host, service.bus).serve(service)
    await _serve_vbds(service, host)


async def _serve_vbds(service: Service, host: VmHost) -> None:
    changes = DiskChanges(host)
    await service.serve(vm_disks.VBD_PLUG, changes.plug, host=host.uuid)
    await service.serve(vm_disks.VBD_INSERT, changes.plug, host=host.uuid)
    await service.serve(vm_disks.VBD_UNPLUG, changes.unplug, host=host.uuid)
    await service.serve(vm_disks.VBD_EJECT, changes.eject, host=host.uuid)
    moves = DiskMoves(host, service.bus)
    await service.serve(vm_disks.VBD_MOVE, moves.move, host=host.uuid)
    await service.serve(vm_disks.VBD_MOVE_END, moves.end, host=host.uuid)
    service.on_stop(moves.close)
    changes.settle_all()
    moves.settle_all()
    DiskTrouble(host).settle_all()
