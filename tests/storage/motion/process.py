"""The process of `tests.storage.motion.host`, from the test's side, and the VM with the disk that moves."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from shared.bus.contract import Empty, Method
from shared.contracts import storage, vm, vm_disks
from shared.contracts.vm import VbdSpec, VmSpec, VmStart
from shared.errors import ApiError
from tests.vm import specs

MIB = 1 << 20
SIZE = 8 * MIB
SRS = ("5a000000-0000-4000-8000-000000000001", "5a000000-0000-4000-8000-000000000002")


class Host:
    """May be started again in the same folder, with what was left there."""

    def __init__(self, folder: Path, guest_dir: Path) -> None:
        self._arguments = (str(folder), str(guest_dir))
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.holding = asyncio.Event()
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.storage.motion.host", *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        ready = asyncio.Event()
        self._reading = asyncio.create_task(self._read(ready))
        async with asyncio.timeout(30):
            await ready.wait()

    async def call(self, method: Method[Any, Any], request: msgspec.Struct) -> Any:
        """The reply. Raises `ApiError`; ConnectionError when the process has died first."""
        _, answer = self.begin(method.name, msgspec.to_builtins(request))
        return msgspec.convert(await answer, method.reply)

    async def tell(self, name: str, **request: Any) -> Any:
        _, answer = self.begin(name, request)
        return await answer

    def begin(self, name: str, request: Any) -> tuple[int, asyncio.Future[Any]]:
        id = next(self._ids)
        answer = self._answers[id] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": id, "method": name, "request": request}).encode() + b"\n")
        return id, answer

    async def died(self) -> None:
        async with asyncio.timeout(30):
            assert await self._process.wait() == -signal.SIGKILL
        await self._reading

    async def stop(self) -> None:
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            async with asyncio.timeout(30):
                await self._process.wait()
        await self._reading

    async def _read(self, ready: asyncio.Event) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "ready" in said:
                ready.set()
            elif "holding" in said:
                self.holding.set()
            elif not (answer := self._answers.pop(said["id"])).done():
                if "error" in said:
                    answer.set_exception(ApiError(*said["error"]))
                else:
                    answer.set_result(said["result"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the host was killed"))
        self._answers.clear()


class Moving:
    """A VM whose guest writes at random, its disk, and what that must hold (`model`)."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.model = bytearray(SIZE)
        self.at: tuple[str, str] = ("", "")
        """SR and location of the disk."""
        self.spec: VmSpec = specs.vm()
        self._random = random.Random(5)

    async def prepare(self) -> None:
        for number, sr in enumerate(SRS):
            config = {"location": str(self.folder / f"sr{number}")}
            create = storage.SrCreate(sr=sr, type="file", device_config=config)
            await self.host.call(storage.SR_CREATE, create)
            await self.host.call(storage.SR_ATTACH, storage.SrAttach(sr=sr, type="file", device_config=config))
        self.at = (SRS[0], await self.disk(SRS[0]))
        self.spec = specs.vm(vbds=[self.vbd(*self.at)])
        self.state = await self.host.call(vm.START, VmStart(vm=self.spec, paused=True))

    async def disk(self, sr: str, size: int = SIZE) -> str:
        name = f"{self._random.getrandbits(32):08x}-0000-4000-8000-000000000000"
        made = await self.host.call(storage.VDI_CREATE, storage.VdiCreate(sr=sr, uuid=name, virtual_size=size))
        return str(made.location)

    def vbd(self, sr: str, location: str) -> VbdSpec:
        return specs.disk("0", sr=sr, location=location, vdi=f"OpaqueRef:{location}")

    async def target(self) -> tuple[str, str]:
        """A new disk on the other SR."""
        sr = SRS[1 - SRS.index(self.at[0])]
        return sr, await self.disk(sr)

    def request(self, target: tuple[str, str]) -> vm_disks.VbdMove:
        return vm_disks.VbdMove(vm=self.spec.uuid, vbd=self.vbd(*target))

    def begin(self, target: tuple[str, str]) -> tuple[int, asyncio.Future[Any]]:
        return self.host.begin(vm_disks.VBD_MOVE.name, msgspec.to_builtins(self.request(target)))

    async def end(self, target: tuple[str, str]) -> bool:
        """Ends the move; whether the VM has the target, which is then where its disk is."""
        found = await self.host.call(vm_disks.VBD_MOVE_END, self.request(target))
        assert found.known
        former = self.at
        if found.moved:
            self.at = target
        gone = former if found.moved else target
        await self.host.call(storage.VDI_DESTROY, storage.VdiRef(sr=gone[0], location=gone[1]))
        return bool(found.moved)

    async def write(self, times: int = 4) -> None:
        for _ in range(times):
            pattern, length = self._random.randrange(1, 256), self._random.randrange(1, 512) * 512
            offset = self._random.randrange((SIZE - length) // 512) * 512
            await self._io(f"write -P {pattern} {offset} {length}")
            self.model[offset : offset + length] = bytes([pattern]) * length

    async def _io(self, command: str) -> None:
        line = f'qemu-io -d /machine/peripheral/vbd-0/virtio-backend "{command}"'
        said = await self.host.tell("guest", vm=self.spec.uuid, line=line)
        assert said == "", said

    async def flush(self) -> None:
        await self._io("flush")

    async def holds_all(self) -> bool:
        """Whether the VM has its disk where it should, and every block of it is what was written."""
        await self.flush()
        chain = await self.host.call(vm_disks.DISK_CHAIN, vm_disks.DiskId(dp=f"vbd/{self.spec.uuid}/0"))
        number = SRS.index(self.at[0])
        assert chain.images == [str(self.folder / f"sr{number}" / f"{self.at[1]}.qcow2")]
        return await self.content() == bytes(self.model)

    async def content(self, path: str = "") -> bytes:
        """Of an image, the VM's unless another is named."""
        image = path or self.folder / f"sr{SRS.index(self.at[0])}" / f"{self.at[1]}.qcow2"
        raw = self.folder / "content"
        process = await asyncio.create_subprocess_exec(
            *("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(image), str(raw))
        )
        assert await process.wait() == 0
        return await asyncio.to_thread(raw.read_bytes)

    async def datapaths(self) -> dict[str, tuple[str, str]]:
        held = await self.host.call(storage.DATAPATHS, Empty())
        return {dp.dp: (dp.sr, dp.location) for dp in held.datapaths}

    def leases(self) -> list[str]:
        """Of both SRs, the disks that somebody has."""
        folders = [self.folder / f"sr{number}" / ".leases" for number in range(len(SRS))]
        return [name for folder in folders if folder.exists() for name in os.listdir(folder) if "guard" not in name]

    def images(self) -> list[str]:
        return [path.stem for number in range(len(SRS)) for path in (self.folder / f"sr{number}").glob("*.qcow2")]
