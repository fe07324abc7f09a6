"""What the storage tests share: plug-ins in a folder of the test, and shorthand for requests."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.storage.host import HostStorage
from services.storage.journal import Journal
from services.storage.plugins.dummy import DummyPlugin
from services.storage.plugins.file.plugin import FilePlugin
from services.storage.plugins.file.qemu_img import QemuImg
from services.storage.plugins.interface import NewVolume, Plugin
from shared.contracts.storage import DiskOpen, SrAttach, SrCreate, VdiCreate

MIB = 1 << 20
SR = "5a000000-0000-4000-8000-000000000001"
HOST_A = "a0000000-0000-4000-8000-00000000000a"
HOST_B = "b0000000-0000-4000-8000-00000000000b"


def new_uuid() -> str:
    return str(uuid.uuid4())


def new(name: str = "") -> NewVolume:
    return NewVolume(uuid=new_uuid(), name=name)


def file_plugin(program: str = "qemu-img", lock_timeout: float = 5.0) -> FilePlugin:
    return FilePlugin(QemuImg(program, 60.0), lock_timeout)


@dataclass
class Machine:
    """One storage process: its journal, its plug-ins and the hosts it serves."""

    state: Path
    journal: Journal
    plugins: dict[str, Plugin]
    hosts: dict[str, HostStorage]

    def __getitem__(self, host: str) -> HostStorage:
        return self.hosts[host]


@asynccontextmanager
async def machine(state: Path, *hosts: str, boot: str = "boot-1") -> AsyncIterator[Machine]:
    """Starts (again) what one storage process holds, and lets go of it as kill -9 would."""
    journal = _journal(state)
    plugins: dict[str, Plugin] = {"file": file_plugin(), "dummy": DummyPlugin(Journal(state / "dummy"))}
    served = {host: HostStorage(host, plugins, journal) for host in hosts or (HOST_A,)}
    for host in served.values():
        await host.start(boot)
        await host.retry()
    try:
        yield Machine(state, journal, plugins, served)
    finally:
        for plugin in plugins.values():
            await plugin.close()
        await journal.close()


def _journal(state: Path) -> Journal:
    state.mkdir(exist_ok=True)
    return Journal(state / "journal")


async def with_sr(host: HostStorage, folder: Path, kind: str = "file", sr: str = SR) -> None:
    config = {"location": str(folder)} if kind == "file" else {}
    await host.create_sr(SrCreate(sr=sr, type=kind, device_config=config))
    await host.attach_sr(SrAttach(sr=sr, type=kind, device_config=config))


async def with_disk(host: HostStorage, size: int = 4 * MIB, sr: str = SR) -> str:
    return (await host.disks.create(VdiCreate(sr=sr, uuid=new_uuid(), virtual_size=size))).location


def disk(location: str, dp: str = "vbd/vm/0", writable: bool = True, sr: str = SR) -> DiskOpen:
    return DiskOpen(dp=dp, sr=sr, location=location, writable=writable)
