"""A pool with one host whose storage is real."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.api.core import records
from tests.api.harness import Client, Pool
from tests.storage.support import MIB
from tests.storage.transfer.bench import Bench


@dataclass
class Real:
    """A host with real storage, and a client of its pool."""

    pool: Pool
    client: Client
    bench: Bench
    folder: Path

    async def sr(self, name: str) -> str:
        place = self.folder / name
        place.mkdir()
        config = {"location": str(place)}
        sr = await self.client.call("SR.create", self.pool.host_ref(0), config, 0, name, "", "file", "", False, {})
        return str(sr)

    async def disk(self, sr: str, size: int = 2 * MIB) -> str:
        return str(await self.client.call("VDI.create", records.vdi(sr, size)))

    def place(self, vdi: str) -> tuple[str, str]:
        row = self.pool.row("VDI", vdi)
        return row["location"], self.pool.row("SR", row["SR"])["uuid"]

    async def write(self, vdi: str, offset: int, data: bytes) -> None:
        location, sr = self.place(vdi)
        async with self.bench.opened(location, sr=sr) as client:
            await client.write(offset, data)
            await client.flush()

    async def content(self, vdi: str) -> bytes:
        location, sr = self.place(vdi)
        return await self.bench.content(location, sr=sr)
