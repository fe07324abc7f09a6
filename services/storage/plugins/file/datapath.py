"""The datapath methods of the type `file`: QEMU opens the images itself; leases say who may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.storage.plugins.file import lease
from services.storage.plugins.file.lease import Taken
from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain, Handle, Held, Implementation

if TYPE_CHECKING:
    from services.storage.plugins.file.plugin import FilePlugin


class FileDatapath:
    def __init__(self, plugin: FilePlugin) -> None:
        self._plugin = plugin

    async def attach(self, uri: str, domain: Domain) -> Implementation:
        sr, key = self._plugin.at(uri, domain.host)
        await sr.run(sr.folder.check_chain, key)
        return Implementation(kind="file", path=str(sr.folder.image(key)), format="qcow2")

    async def activate(self, uri: str, domain: Domain) -> None:
        await self._acquire(uri, domain, writable=True)

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        await self._acquire(uri, domain, writable=False)

    async def deactivate(self, uri: str, domain: Domain) -> None:
        sr, key = self._plugin.at(uri, domain.host)
        await self._plugin.patiently(sr, lease.release, sr.folder.path, key, domain.host)

    async def detach(self, uri: str, domain: Domain) -> None:
        """Nothing to let go of."""

    async def held(self, sr: Handle) -> list[Held]:
        attached = self._plugin.attached(sr)
        leases = await attached.run(lease.held, attached.folder.path, attached.folder.host)
        return [
            Held(key=key, uri=attached.folder.uri(key), dp=found.dp, writable=writes) for key, found, writes in leases
        ]

    async def fence(self, sr: Handle, host: str) -> int:
        attached = self._plugin.attached(sr)
        return await self._plugin.patiently(attached, lease.fence, attached.folder.path, host)

    async def _acquire(self, uri: str, domain: Domain, writable: bool) -> None:
        sr, key = self._plugin.at(uri, domain.host)
        try:
            await self._plugin.patiently(sr, lease.acquire, sr.folder.path, key, domain, writable)
        except Taken as taken:
            raise ActivatedOnAnotherHost(taken.lease.host, taken.lease.dp) from taken
