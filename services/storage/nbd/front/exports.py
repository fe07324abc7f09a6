"""Exports that clients read: the disk opened for them alone, and a qemu-nbd that only reads."""

from __future__ import annotations

import asyncio
import base64
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from services.storage.datapaths import NBD
from services.storage.host import HostStorage
from services.storage.nbd.front.changes import ChangesImage
from services.storage.nbd.server import NbdServer, Programs, named
from services.storage.plugins.errors import Failure, backend_failure, plugin_failed
from services.storage.plugins.interface import Changed
from services.storage.settle import settle_or_undo
from shared.contracts.nbd import ServedDisk
from shared.contracts.storage import Backend, DiskOpen, VdiPair, VdiRef
from shared.errors import ApiError


@dataclass(frozen=True, slots=True)
class Exports:
    """Of one host. `sockets`: the folder for qemu-nbd's."""

    storage: HostStorage
    sockets: Path
    programs: Programs

    async def open(self, served: ServedDisk, bitmap: str, holds: AsyncExitStack) -> str:
        """The socket of the export; what it needs is closed with `holds`. Raises ApiError.

        `bitmap`: the name under which block status tells what has changed since the base, if there is one.
        """
        dp, disk = f"{NBD}{secrets.token_hex(8)}", served.disk
        opening = DiskOpen(dp=dp, sr=disk.sr, location=disk.location, writable=False)
        [backend] = await self.storage.datapaths.open([opening])
        holds.push_async_callback(self.storage.datapaths.close, [dp])
        if backend.format == "none":
            raise ApiError("SR_OPERATION_NOT_SUPPORTED", disk.sr)  # a simulated disk has no content
        if served.base is not None:
            backend = await self._with_changes(backend, disk, served.base, bitmap, holds)
        server = await NbdServer.start(
            backend,
            self.sockets,
            bitmap=bitmap if served.base is not None else "",
            guarded=True,
            programs=self.programs,
        )
        holds.push_async_callback(server.close)
        return server.address.path

    async def _with_changes(
        self, backend: Backend, disk: VdiRef, base: VdiRef, bitmap: str, holds: AsyncExitStack
    ) -> Backend:
        """What the plug-in tells of changed blocks, over the disk. Nobody writes to it as long as it is open here."""
        if base.sr != disk.sr:
            raise backend_failure(Failure.CHANGED_BLOCKS, "the two disks are unrelated: they are in different SRs")
        storage = self.storage
        plugin, handle = storage.repositories.find(disk.sr)
        async with storage.locks.disks([(disk.sr, disk.location)]):
            size = (await plugin.volume.stat(handle, disk.location)).virtual_size
        pair = VdiPair(sr=disk.sr, location=base.location, other=disk.location)
        told = await storage.disks.changed_blocks(pair)
        changed = Changed(granularity=told.granularity, bitmap=base64.b64decode(told.bitmap))
        try:
            making = asyncio.to_thread(ChangesImage, size, changed, bitmap, *named(backend))
            image = await settle_or_undo(making, _closed)
        except (OSError, ValueError) as error:
            raise plugin_failed(f"the changed blocks cannot be served: {error}") from error
        holds.callback(image.close)
        return replace(backend, kind="file", path=image.path, format="qcow2")


async def _closed(image: ChangesImage) -> None:
    image.close()
