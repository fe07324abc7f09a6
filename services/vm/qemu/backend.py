"""Domains that are QEMU processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.vm import checks
from services.vm.backend import Built, DiskNews, Domain, Expected, OnStopped, Stopped
from services.vm.options import AccelChoice, private_folder
from services.vm.qemu import command_line, event_log, host_facts, process, program
from services.vm.qemu.accelerator import Accelerator, choose
from services.vm.qemu.disks.access import look
from services.vm.qemu.disks.disks import QemuDisks
from services.vm.qemu.disks.stalls import stalled
from services.vm.qemu.guest import Guest
from services.vm.qemu.kernel import direct_boot
from services.vm.qemu.paths import HostPaths
from services.vm.qemu.process import Handle, Identity
from services.vm.qemu.program import ProgramError
from shared.contracts.vm import ConsoleInfo, HostCapabilities, PowerState, VmSpec
from shared.errors import ApiError

log = logging.getLogger("vm.qemu")

MEMORY_OVERHEAD = 64 * 2**20
"""Bytes that a QEMU process needs besides its guest's memory."""
CONNECT_TIMEOUT = 15.0
FIND_AGAIN_TIMEOUT = 5.0
KILL_TIMEOUT = 10.0
TRIM_EVERY = 60.0


@dataclass(frozen=True)
class Settings:
    """`unplug_timeout` (s): how long a guest may take to let go of a device."""

    binary: str
    accel: AccelChoice
    guest_dir: Path
    kvm_verdict: Path
    paths: HostPaths
    unplug_timeout: float = 60.0


class QemuBackend:
    """A missing QEMU is an error of those calls that need it, each time it is still missing."""

    name = "qemu"

    def __init__(self, settings: Settings, on_stopped: OnStopped) -> None:
        self._settings = settings
        self._paths = settings.paths
        self._on_stopped = on_stopped
        self._guests: dict[str, Guest] = {}
        self.disks = QemuDisks(self._living, settings.unplug_timeout)
        self.disk_news = DiskNews()
        self._choosing: asyncio.Task[Accelerator] | None = None
        self._trimming: asyncio.Task[None] | None = None

    # ---- the service's start and end

    async def open(self, expected: Sequence[Expected]) -> dict[str, PowerState]:
        private_folder(self._paths.run)
        private_folder(self._paths.logs)
        wanted = {one.domain.domid: one for one in expected}
        found = await asyncio.to_thread(self._processes)
        survivors: dict[str, PowerState] = {}
        for domid, identities in found.items():
            one = wanted.get(domid)
            for identity in identities:
                if one is not None and identity == Identity(one.built.pid, one.built.started):
                    survivor = await self._find_again(one, identity)
                    if survivor is not None:
                        survivors[one.domain.vm.uuid] = survivor
                else:
                    log.warning("process %d of the unfinished domain %d is killed", identity.pid, domid)
                    if not await process.end(identity, KILL_TIMEOUT):
                        log.error("process %d cannot be killed", identity.pid)  # VMs beside it must still be found
        for one in expected:
            if one.domain.vm.uuid not in survivors:
                how = event_log.how_it_ended(self._paths.domain(one.domain.domid).events)
                self._stopped(Stopped(one.domain.vm.uuid, one.domain.domid, how))
        living = {guest.domain.domid for guest in self._guests.values()}
        for domid, path in self._paths.files():
            if domid not in living:
                path.unlink(missing_ok=True)
        self._trimming = asyncio.create_task(self._trim_logs(), name="trim logs of domains")
        return survivors

    async def close(self) -> None:
        for task in (self._choosing, self._trimming):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(*(guest.close() for guest in self._guests.values()))
        self._guests.clear()

    def _processes(self) -> dict[int, list[Identity]]:
        """Every QEMU process of this host, by domid, also those that no record knows."""
        found: dict[int, list[Identity]] = {}
        for identity, pid_file in process.with_argument("-pidfile"):
            domid = self._paths.domid_of(pid_file)
            if domid is not None:
                found.setdefault(domid, []).append(identity)
        return found

    async def _find_again(self, one: Expected, identity: Identity) -> PowerState | None:
        handle = Handle.open(identity)
        if handle is None:
            return None
        guest = self._follow(one.domain, handle)
        if not await guest.connected(FIND_AGAIN_TIMEOUT):
            # it may be stopped by a debugger or wait for a dead disk: it is alive, and that is what counts
            log.warning("domain %d is there and does not answer on QMP", one.domain.domid)
            return one.power_state
        if guest.stopped is not None:
            return one.power_state
        try:
            if not await guest.running():
                held = (await look(guest)).closed() or await stalled(guest)
                return one.power_state if held else PowerState.PAUSED
            return PowerState.RUNNING
        except ApiError as error:
            log.warning("domain %d: %s", one.domain.domid, error)
            return one.power_state

    # ---- what the host can do

    async def capabilities(self) -> HostCapabilities:
        cpu = await asyncio.to_thread(host_facts.cpu)
        try:
            version = await program.version(program.locate(self._settings.binary))
            accel = (await self._accelerator()).name
        except ProgramError as error:
            version, accel = f"unavailable: {error}", ""
        return HostCapabilities(
            backend=self.name,
            accel=accel,
            version=version,
            cpu_count=cpu.count,
            cpu_model=cpu.model,
            cpu_vendor=cpu.vendor,
            cpu_speed=cpu.speed,
            cpu_flags=cpu.flags,
            memory_total=host_facts.memory_total(),
            memory_overhead=host_facts.RESERVED,
            capabilities=["hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64"] if accel else [],
        )

    async def why_accelerator(self) -> str:
        """For people: which accelerator, and why not a better one."""
        try:
            chosen = await self._accelerator()
        except ProgramError as error:
            return f"none: {error}"
        return f"{chosen.name}: {chosen.why}"

    async def _accelerator(self) -> Accelerator:
        """Chosen once; whoever asks meanwhile waits for the same answer."""
        failed = self._choosing is not None and self._choosing.done() and self._choosing.exception() is not None
        if self._choosing is None or failed:
            settings = self._settings
            binary = program.locate(settings.binary)
            self._choosing = asyncio.create_task(
                choose(settings.accel, binary, settings.guest_dir, settings.kvm_verdict), name="choose accelerator"
            )
        return await asyncio.shield(self._choosing)

    def check(self, vm: VmSpec) -> None:
        checks.check(vm)
        command_line.check(vm)
        if vm.domain_type in checks.DIRECT_BOOT:
            direct_boot(vm, self._settings.guest_dir)

    def consoles(self, vm: VmSpec) -> list[ConsoleInfo]:
        return command_line.consoles(vm)

    # ---- domains

    async def create(self, domain: Domain) -> Built:
        vm = domain.vm
        needed, free = domain.memory + MEMORY_OVERHEAD, host_facts.memory_free()
        if needed > free:
            raise ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", needed, free)
        boot = direct_boot(vm, self._settings.guest_dir) if vm.domain_type in checks.DIRECT_BOOT else None
        paths = self._paths.domain(domain.domid)
        try:
            binary = program.locate(self._settings.binary)
            accel = (await self._accelerator()).name
            await program.launch(command_line.command_line(binary, domain, paths, accel, boot))
            identity = process.identify(int(paths.pid.read_text()))
            handle = Handle.open(identity) if identity is not None else None
            if identity is None or handle is None:
                raise ProgramError("it ended at once")
        except (ProgramError, OSError, ValueError) as error:
            raise ApiError("FAILED_TO_START_EMULATOR", vm.ref, self._settings.binary, str(error)) from error
        guest = self._follow(domain, handle)
        if not await guest.connected(CONNECT_TIMEOUT):
            raise ApiError("FAILED_TO_START_EMULATOR", vm.ref, self._settings.binary, "it does not answer on QMP")
        return Built(accel=accel, pid=identity.pid, started=identity.started)

    async def unpause(self, vm: str) -> None:
        guest = self.guest(vm)
        if not (await look(guest)).closed():  # else whoever resumes its disk does it
            await guest.execute("cont")

    async def pause(self, vm: str) -> None:
        await self.guest(vm).execute("stop")

    async def request_shutdown(self, vm: str) -> None:
        await self.guest(vm).press_power_button()

    async def destroy(self, domain: Domain) -> None:
        guest = self._guests.get(domain.vm.uuid)
        if guest is not None and guest.domain.domid == domain.domid:
            await guest.end()
            del self._guests[domain.vm.uuid]
        else:  # its process may have been started, by us or by a former process of the service, and never noticed
            for identity in (await asyncio.to_thread(self._processes)).get(domain.domid, []):
                await _end(identity)
        for path in self._paths.domain(domain.domid).all():
            path.unlink(missing_ok=True)

    async def console(self, vm: str, protocol: str) -> str:
        guest = self.guest(vm)
        if protocol not in {console.protocol for console in self.consoles(guest.domain.vm)}:
            raise ApiError("INVALID_VALUE", "protocol", protocol)
        return str(guest.paths.vnc) if protocol == "rfb" else await guest.console()

    def guest(self, vm: str) -> Guest:
        if vm not in self._guests:
            raise ApiError("INTERNAL_ERROR", f"VM {vm} has no domain here")
        return self._guests[vm]

    def _living(self, vm: str) -> Guest | None:
        guest = self._guests.get(vm)
        return None if guest is None or guest.gone else guest

    def _follow(self, domain: Domain, handle: Handle) -> Guest:
        vm = domain.vm.uuid
        paths = self._paths.domain(domain.domid)
        self._guests[vm] = Guest(domain, paths, handle, self._stopped, self.disk_news)
        return self._guests[vm]

    def _stopped(self, stopped: Stopped) -> None:
        log.info("domain %d of VM %s stopped by itself: %s", stopped.domid, stopped.vm, stopped.reason)
        self._on_stopped(stopped)

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(TRIM_EVERY)
            for guest in list(self._guests.values()):
                for path in (guest.paths.events, guest.paths.output):
                    try:
                        await asyncio.to_thread(event_log.trim, path)
                    except OSError as error:
                        log.warning("cannot trim %s: %s", path, error)


async def _end(identity: Identity) -> None:
    if not await process.end(identity, KILL_TIMEOUT):
        raise ApiError("INTERNAL_ERROR", f"the QEMU process {identity.pid} cannot be killed")
