"""Exports that clients read: the disk opened for them alone, and a qemu-nbd that only reads."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from services.storage.datapaths import NBD
from services.storage.host import HostStorage
from services.storage.nbd.server import NbdServer, Programs
from services.storage.plugins.errors import plugin_failed
from shared.contracts.nbd import ServedDisk
from shared.contracts.storage import DiskOpen


@dataclass(frozen=True, slots=True)
class Exports:
    """Of one host. `sockets`: the folder for qemu-nbd's."""

    storage: HostStorage
    sockets: Path
    programs: Programs

    async def open(self, served: ServedDisk, holds: AsyncExitStack) -> str:
        """The socket of the export; what it needs is closed with `holds`. Raises ApiError."""
        dp, disk = f"{NBD}{secrets.token_hex(8)}", served.disk
        opening = DiskOpen(dp=dp, sr=disk.sr, location=disk.location, writable=False)
        backends = await self.storage.datapaths.open([opening])
        holds.push_async_callback(self.storage.datapaths.close, [dp])
        if backends[0].format == "none":
            raise plugin_failed("a simulated disk has no content to read")
        server = await NbdServer.start(backends[0], self.sockets, guarded=True, programs=self.programs)
        holds.push_async_callback(server.close)
        return server.address.path
