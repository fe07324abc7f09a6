"""Real disks behind a fake host: its SR's data is that of a `file` SR, moved by real transfers and their workers.

A disk is made when it is first used; it has the uuid and size of the fake's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.storage.settle import settle
from shared.bus.contract import Empty
from shared.contracts import transfer as contract
from shared.contracts.storage import VdiCreate
from tests.api.harness import Pool
from tests.storage.support import with_sr
from tests.storage.transfer.bench import Bench, Reports, bench


class RealDisks:
    """`imports`: the requests for them. `opened`: the disk of one is open. `told`: if it is cleared, replies wait."""

    def __init__(self, pool: Pool, storage: Bench) -> None:
        self.storage = storage
        self.imports: list[contract.Import] = []
        self.opened = asyncio.Event()
        self.told = asyncio.Event()
        self.told.set()
        self._host = pool.hosts[0]

    async def serve(self) -> None:
        transfers, bus, host = self.storage.transfers, self._host.bus, self._host.uuid

        async def export(request: contract.Export) -> contract.Prepared:
            for location in (request.location, request.base):
                await self.have(request.sr, location)
            return await transfers.export(request)

        async def import_(request: contract.Import) -> contract.Prepared:
            self.imports.append(request)
            await self.have(request.sr, request.location)
            prepared = await transfers.import_(request)
            self.opened.set()
            try:
                await self.told.wait()
            except asyncio.CancelledError:
                await settle(self._closed(prepared))  # as one that is cancelled while it opens the disk
                raise
            return prepared

        async def end(request: contract.TransferId) -> contract.Moved:
            return await transfers.end(request.transfer, Reports())

        async def cancel(request: contract.TransferId) -> Empty:
            await transfers.cancel(request.transfer)
            return Empty()

        async def abandon(request: contract.Begun) -> Empty:
            await transfers.abandon(request.process)
            return Empty()

        await bus.serve(contract.EXPORT, export, host=host)
        await bus.serve(contract.IMPORT, import_, host=host)
        await bus.serve(contract.TRANSFER_END, end, host=host)
        await bus.serve(contract.TRANSFER_CANCEL, cancel, host=host)
        await bus.serve(contract.TRANSFERS_ABANDON, abandon, host=host)

    async def _closed(self, prepared: contract.Prepared) -> None:
        await self.told.wait()
        await self.storage.transfers.cancel(prepared.transfer)

    async def have(self, sr: str, location: str) -> None:
        if not location or location in {disk.location for disk in (await self.storage.host.disks.scan(sr)).disks}:
            return
        size = self._host.disks.srs[sr][location].virtual_size
        await self.storage.host.disks.create(VdiCreate(sr=sr, uuid=location, virtual_size=size))


@asynccontextmanager
async def real_disks(pool: Pool, folder: Path) -> AsyncIterator[RealDisks]:
    (sr,) = pool.hosts[0].attached
    (folder / "medium").mkdir(parents=True)
    async with bench(folder) as storage:
        await with_sr(storage.host, folder / "medium", sr=sr)
        disks = RealDisks(pool, storage)
        await disks.serve()
        yield disks
