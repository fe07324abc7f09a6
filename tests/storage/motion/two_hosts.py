"""Two hosts of a pool in one process: the real storage service of each, with an SR in a folder that only it has, and a
VM service with QEMU on the first, on the bus in memory. Each can be killed.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.storage import service as storage_service
from services.storage.nbd.client import NbdClient
from services.storage.nbd.front import readers
from services.storage.nbd.server import NbdServer
from services.storage.plugins import lifetime
from services.vm import service as vm_service
from services.vm.host import VmHost
from services.vm.qemu.backend import QemuBackend
from shared.bus.contract import Empty, Method
from shared.bus.endpoint import Endpoint
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts import motion, storage, vm
from shared.contracts.transfer import Copy
from shared.service import Service
from tests.api.harness import QUICK, kill
from tests.storage.support import HOST_A, HOST_B, MIB, new_uuid
from tests.vm import specs

SIZE = 8 * MIB
SRS = {HOST_A: "5a000000-0000-4000-8000-00000000000a", HOST_B: "5a000000-0000-4000-8000-00000000000b"}
HOSTS = {
    HOST_A: HostConfig(uuid=HOST_A, name="a", address="127.0.0.11"),
    HOST_B: HostConfig(uuid=HOST_B, name="b", address="127.0.0.12"),
}
PATIENCE = 20.0
TIMING = replace(QUICK, drain=0.1)
"""Nobody waits for what asks an API that there is not."""


class TwoHosts:
    """`certificates`: folder of those that both show."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.folder, self.certificates = folder, certificates
        self.broker = MemoryBroker()
        self.client: Endpoint
        self.model = bytearray(SIZE)
        self.vm = specs.vm()
        self._services: dict[str, Service] = {}
        self._vms: list[VmHost] = []
        self._random = random.Random(7)

    async def start(self, name: str, host: str, **options: Any) -> None:
        """A service of a host, `storage` or `vm`; again after `kill`."""
        place = self.folder / host[0]
        (place / name).mkdir(parents=True, exist_ok=True)
        if name == "storage":
            options = {"smapiv1_dir": "", "smapiv3_root": "", "nbd_port": 0, **options}
            options["nbd_certificates"] = str(self.certificates)
        config = Config(
            service=name,
            state_dir=str(place / name),
            bus=BusConfig(url="memory:"),
            hosts=[HOSTS[host]],
            options={"run_dir": str(place / "run"), **options},
        )
        service = Service(config, await self.broker.connect(f"{name}-{host[0]}", TIMING))
        await (storage_service if name == "storage" else vm_service).setup(service)
        await service.open_queues()
        self._services[f"{name}/{host}"] = service

    async def kill(self, name: str, host: str) -> None:
        """As kill -9: what is tied to the process ends with it."""
        await kill(self._services.pop(f"{name}/{host}"))
        for program in self.programs(host):
            program.kill()

        async def programs() -> list[psutil.Process]:
            return self.programs(host)

        await until(programs)

    async def stop(self) -> None:
        await asyncio.gather(*(service.close() for service in self._services.values()))
        await self.client.close()

    async def call(self, host: str, method: Method[Any, Any], request: Any, **named: Any) -> Any:
        return await self.client.call(method, request, host=host, **named)

    # ---- storage

    async def with_sr(self, host: str) -> None:
        config = {"location": str(self.folder / host[0] / "sr")}
        await self.call(host, storage.SR_CREATE, storage.SrCreate(sr=SRS[host], type="file", device_config=config))
        await self.call(host, storage.SR_ATTACH, storage.SrAttach(sr=SRS[host], type="file", device_config=config))

    async def disk(self, host: str, size: int = SIZE) -> str:
        request = storage.VdiCreate(sr=SRS[host], uuid=new_uuid(), virtual_size=size)
        return str((await self.call(host, storage.VDI_CREATE, request)).location)

    async def destroy(self, host: str, location: str) -> None:
        """Raises VDI_IN_USE while anybody has it."""
        await self.call(host, storage.VDI_DESTROY, storage.VdiRef(sr=SRS[host], location=location))

    def image(self, host: str, location: str) -> Path:
        return self.folder / host[0] / "sr" / f"{location}.qcow2"

    @asynccontextmanager
    async def opened(self, host: str, location: str) -> AsyncIterator[NbdClient]:
        """For somebody who writes to it."""
        dp = f"task/{new_uuid()}"
        wanted = storage.DiskOpen(dp=dp, sr=SRS[host], location=location, writable=True)
        [backend] = (await self.call(host, storage.OPEN, storage.Open(disks=[wanted]))).backends
        async with await NbdServer.start(backend, self.folder) as server, await NbdClient.connect(server.address) as to:
            yield to
            await to.flush()
        await self.call(host, storage.CLOSE, storage.Close(dps=[dp]))

    async def content(self, host: str, location: str) -> bytes:
        """Of its image, whoever has it open."""
        raw = self.folder / "content"
        process = await asyncio.create_subprocess_exec(
            *("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(self.image(host, location)), str(raw))
        )
        assert await process.wait() == 0
        return await asyncio.to_thread(raw.read_bytes)

    async def datapaths(self, host: str) -> list[str]:
        return [each.dp for each in (await self.call(host, storage.DATAPATHS, Empty())).datapaths]

    def programs(self, host: str) -> list[psutil.Process]:
        """Of its storage service."""
        mine = [f"--socket={self.folder / host[0]}", f"dir={self.folder / host[0]}"]
        return [
            child
            for child in psutil.Process().children()
            if any(each in argument for argument in _arguments(child) for each in mine)
            and "qemu-system" not in _arguments(child)[0]
        ]

    def sockets(self, host: str) -> list[str]:
        """And folders with keys."""
        return os.listdir(self.folder / host[0] / "run" / "disks")

    async def nothing_is_left(self, *others: str) -> None:
        """Of what moved, on either host. `others`: datapaths that there should be."""

        async def left() -> list[str]:
            found = []
            for host in HOSTS:
                found += [dp for dp in await self.datapaths(host) if dp not in others]
                found += [" ".join(_arguments(each)) for each in self.programs(host)] + self.sockets(host)
            return found

        await until(left)

    # ---- a VM on the first host, whose guest writes at random

    async def with_vm(self, guest_dir: Path) -> str:
        """Its disk."""
        made = VmHost.__init__

        def kept(host: VmHost, *arguments: Any, **named: Any) -> None:
            made(host, *arguments, **named)
            self._vms.append(host)

        VmHost.__init__ = kept  # type: ignore[assignment,method-assign]
        try:
            await self.start("vm", HOST_A, backend="qemu", accel="tcg", guest_dir=str(guest_dir))
        finally:
            VmHost.__init__ = made  # type: ignore[method-assign]
        location = await self.disk(HOST_A)
        self.vm = specs.vm(vbds=[specs.disk("0", sr=SRS[HOST_A], location=location, vdi=f"OpaqueRef:{location}")])
        await self.call(HOST_A, vm.START, vm.VmStart(vm=self.vm, paused=True))
        return location

    @property
    def vbd(self) -> str:
        return f"vbd/{self.vm.uuid}/0"

    async def write(self, times: int = 4) -> None:
        for _ in range(times):
            pattern, length = self._random.randrange(1, 256), self._random.randrange(1, 512) * 512
            offset = self._random.randrange((SIZE - length) // 512) * 512
            await self.guest(f"write -P {pattern} {offset} {length}")
            self.model[offset : offset + length] = bytes([pattern]) * length

    async def guest(self, command: str) -> None:
        backend = self._vms[-1].backend
        assert isinstance(backend, QemuBackend)
        line = {"command-line": f'qemu-io -d /machine/peripheral/vbd-0/virtio-backend "{command}"'}
        assert await backend.guest(self.vm.uuid).execute("human-monitor-command", **line) == ""

    async def shut_down(self) -> None:
        await self.call(HOST_A, vm.SHUTDOWN, vm.VmShutdown(vm=self.vm.uuid))

    # ---- what is tested

    def copy(self, source: str, target: str, **more: Any) -> Copy:
        places = {"location": source, "to_location": target, **more}
        return Copy(dp=f"copy/{target}", sr=SRS[HOST_A], to_sr=SRS[HOST_B], to_host=HOST_B, **places)

    def mirror(self, target: str) -> motion.Mirror:
        dp = f"{motion.PREFIX}{target}"
        return motion.Mirror(dp=dp, disk=self.vbd, to_host=HOST_B, sr=SRS[HOST_B], location=target)

    async def until_ready(self, mirror: motion.Mirror) -> None:
        async def unready() -> bool:
            state = await self.call(HOST_A, motion.MIRROR_STATE, motion.MirrorName(dp=mirror.dp))
            assert state.running, state.failed
            return not state.ready

        await until(unready)


async def until(left: Callable[[], Any]) -> None:
    """Nothing is left; asked again and again, since nobody tells."""
    try:
        async with asyncio.timeout(PATIENCE):
            while await left():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still there: {await left()}") from None


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return [""]


@asynccontextmanager
async def two_hosts(folder: Path, certificates: Path, **options: Any) -> AsyncIterator[TwoHosts]:
    """With their storage."""
    made = TwoHosts(folder, certificates)
    made.client = await made.broker.connect("client", QUICK)
    with pytest.MonkeyPatch.context() as patch:
        # A former service never ends here: its programs are killed, but its files stay open in this process.
        patch.setattr(lifetime, "begin", _begun)
        patch.setattr(readers, "LAST_WORD", 0.1)  # there is no API
        for host in HOSTS:
            await made.start("storage", host, **options)
            await made.with_sr(host)
        yield made
        await made.stop()


async def _begun(_: Path) -> None:
    """There is nobody to wait for."""
