"""Images of a test's disks, and what a guest would write to them and read from them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.vm.backend import Backend, Disk, Domain
from services.vm.disks import Slot
from services.vm.qemu.backend import QemuBackend
from shared.contracts.storage import Backend as DiskBackend
from shared.contracts.vm import VbdSpec

MB = 2**20


class Images:
    """In one folder. `real`: qcow2 files; otherwise only names, for backends that open nothing."""

    def __init__(self, folder: Path, *, real: bool) -> None:
        self._folder = folder
        self._real = real

    def path(self, name: str) -> str:
        return str(self._folder / f"{name}.qcow2")

    async def make(self, name: str, size: int = 4 * MB, *, over: str = "") -> str:
        """The path of a new image. `over`: name of its backing file."""
        path = self.path(name)
        if self._real:
            below = ["-b", self.path(over), "-F", "qcow2"] if over else []
            await qemu_img("create", "-q", "-f", "qcow2", *below, path, str(size))
        return path

    def backend(self, path: str, *, writable: bool = True) -> DiskBackend:
        form = "qcow2" if self._real else "none"
        return DiskBackend(dp="", kind="file", path=path, format=form, writable=writable)

    def disk(self, vbd: VbdSpec, path: str) -> Disk:
        return Disk(vbd, self.backend(path, writable=vbd.mode == "RW"))

    async def holds(self, path: str, pattern: int, offset: int = 0, length: int = 64 * 1024) -> bool:
        """Whether an image that nobody has open reads like that; for real ones. Fails while somebody writes to it."""
        return await _reads(path, pattern, offset, length)


async def _reads(path: str, pattern: int, offset: int, length: int, *options: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *("qemu-io", *options, "-r", "-f", "qcow2", "-c", f"read -P {pattern} {offset} {length}", path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert b"read %d/%d" % (length, length) in output, output
    return b"failed" not in output


async def qemu_img(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec("qemu-img", *arguments)
    assert await process.wait() == 0


class GuestDisk:
    """A domain's disk as its guest has it. A simulated guest writes nothing and reads what it likes."""

    def __init__(self, backend: Backend, domain: Domain, device: str) -> None:
        self._backend = backend
        self._vm = domain.vm.uuid
        self._device = device
        self.slot = Slot(self._vm, device, f"OpaqueRef:vbd-{device}")

    async def write(self, pattern: int, offset: int = 0, length: int = 64 * 1024) -> None:
        await self._io(f"write -P {pattern} {offset} {length}")

    async def flush(self) -> None:
        await self._io("flush")

    async def reads(self, pattern: int, offset: int = 0, length: int = 64 * 1024) -> bool:
        if not isinstance(self._backend, QemuBackend):
            return True
        await self.flush()
        images = (await self._backend.disks.chain(self.slot)).images
        return await _reads(images[0], pattern, offset, length, "-U")

    async def _io(self, command: str) -> None:
        if isinstance(self._backend, QemuBackend):
            where = f"/machine/peripheral/vbd-{self._device}/virtio-backend"
            line = f'qemu-io -d {where} "{command}"'
            said = await self._backend.guest(self._vm).execute("human-monitor-command", **{"command-line": line})
            assert said == "", said
