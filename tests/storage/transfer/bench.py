"""What the tests of transfers share: a storage host with its transfers, disks and models of them, clients."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from services.storage.host import HostStorage
from services.storage.nbd.client import NbdClient
from services.storage.nbd.server import NbdServer
from services.storage.transfer.transfers import Transfers
from shared.contracts.storage import VdiCreate
from shared.contracts.transfer import Export, Format, Import, Moved, Prepared
from tests.storage.support import HOST_A, MIB, SR, disk, machine, new_uuid, with_sr

KIB = 1 << 10


class Reports(list[float]):
    """What a task is told of progress."""

    async def __call__(self, part: float) -> None:
        self.append(part)


def words(process: psutil.Process) -> list[str]:
    """Its command line."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # ended, maybe long ago, and nobody has asked how
        return []


@dataclass
class Bench:
    host: HostStorage
    transfers: Transfers
    folder: Path

    async def disk(self, size: int = 4 * MIB, sr: str = SR) -> str:
        created = await self.host.disks.create(VdiCreate(sr=sr, uuid=new_uuid(), virtual_size=size))
        return created.location

    @asynccontextmanager
    async def opened(self, location: str, writable: bool = True, sr: str = SR) -> AsyncIterator[NbdClient]:
        """The disk as another client sees it, who has it open meanwhile."""
        dp = f"vbd/{new_uuid()}/0"
        (backend,) = await self.host.datapaths.open([disk(location, dp, writable, sr)])
        try:
            async with (
                await NbdServer.start(backend, self.folder) as server,
                await NbdClient.connect(server.address) as client,
            ):
                yield client
        finally:
            await self.host.datapaths.close([dp])

    async def content(self, location: str, sr: str = SR) -> bytes:
        async with self.opened(location, writable=False, sr=sr) as client:
            return b"".join([await client.read(at, min(MIB, client.size - at)) for at in range(0, client.size, MIB)])

    async def export(self, location: str, format: Format = "raw", **options: Any) -> Prepared:
        return await self.transfers.export(
            Export(dp=f"task/{new_uuid()}", sr=SR, location=location, uuid=new_uuid(), format=format, **options)
        )

    async def take(self, prepared: Prepared) -> bytes:
        """The whole stream; raises why it failed."""
        reader, writer = await asyncio.open_unix_connection(prepared.path)
        data = await reader.read()
        writer.close()
        await self.end(prepared)
        return data

    async def accept(self, location: str, format: Format = "raw", **options: Any) -> Prepared:
        return await self.transfers.import_(
            Import(dp=f"task/{new_uuid()}", sr=SR, location=location, format=format, **options)
        )

    async def give(self, prepared: Prepared, data: bytes) -> Moved:
        """All of it, then the end."""
        _, writer = await asyncio.open_unix_connection(prepared.path)
        writer.write(data)
        writer.write_eof()
        try:
            return await self.end(prepared)
        finally:
            writer.close()

    async def end(self, prepared: Prepared) -> Moved:
        async with asyncio.timeout(20):
            return await self.transfers.end(prepared.transfer, Reports())

    def kill_workers(self) -> None:
        """Those that run."""
        for process in psutil.Process().children():
            if "services.storage.transfer" in words(process):
                process.kill()

    def nothing_is_open(self) -> bool:
        return not self.host.datapaths.held() and not list(self.folder.iterdir())


@asynccontextmanager
async def bench(folder: Path, **options: Any) -> AsyncIterator[Bench]:
    sockets = folder / "sockets"
    sockets.mkdir(exist_ok=True)
    async with machine(folder / "state") as storage:
        host = storage[HOST_A]
        if SR not in host.repositories.attached():
            (folder / "sr").mkdir(exist_ok=True)
            await with_sr(host, folder / "sr")
        transfers = Transfers(host.repositories, host.datapaths, host.locks, sockets, **options)
        try:
            yield Bench(host, transfers, sockets)
        finally:
            await transfers.close()


class Model:
    """What a disk should hold, changed together with it."""

    def __init__(self, size: int, seed: int) -> None:
        self.content = bytearray(size)
        self._random = random.Random(seed)

    async def change(self, client: NbdClient, writes: int = 12) -> None:
        """Writes, and zeros, at random places of random lengths, some in whole blocks and some across them."""
        for _ in range(writes):
            length = self._random.choice((512, 5000, 64 * KIB, 200_000))
            offset = self._random.randrange(0, len(self.content) - length)
            if self._random.random() < 0.3:
                await client.zero(offset, length)
                self.content[offset : offset + length] = bytes(length)
            else:
                data = self._random.randbytes(length)
                await client.write(offset, data)
                self.content[offset : offset + length] = data
        await client.flush()
