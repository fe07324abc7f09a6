"""The datapath methods of the type `file`: QEMU opens the images itself; leases say who may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.storage.plugins.errors import Failure
from services.storage.plugins.file import lease
from services.storage.plugins.file.attached import Attached
from services.storage.plugins.file.lease import Taken
from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain, Handle, Held, Implementation
from services.storage.plugins.skeleton import DatapathSkeleton
from shared.errors import ApiError

if TYPE_CHECKING:
    from services.storage.plugins.file.plugin import FilePlugin

_WALKS = 3
"""How often a chain is followed before an image that is gone is taken for gone: a merge may just have replaced it."""


class FileDatapath(DatapathSkeleton):
    def __init__(self, plugin: FilePlugin) -> None:
        self._plugin = plugin

    async def attach(self, uri: str, domain: Domain) -> Implementation:
        sr, key = self._plugin.at(uri, domain.host)
        if (await sr.run(sr.folder.disk, key)).raw:
            await sr.run(sr.folder.volume, key)
            return Implementation(kind="file", path=str(sr.folder.raw(key)), format="raw")
        chain = await self._chain(sr, key)
        return Implementation(kind="file", path=str(sr.folder.image(chain[0])), format="qcow2")

    async def located(self, uri: str, domain: Domain, attached: Implementation) -> Implementation:
        """Until it was activated, a merge may have given the disk another image, or another host a new one."""
        sr, key = self._plugin.at(uri, domain.host)
        if attached.format == "raw":
            return attached
        return Implementation(kind="file", path=str(sr.folder.image(await sr.run(sr.folder.top, key))), format="qcow2")

    async def activate(self, uri: str, domain: Domain) -> None:
        await self._acquire(uri, domain, writable=True)

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        await self._acquire(uri, domain, writable=False)

    async def deactivate(self, uri: str, domain: Domain) -> None:
        sr, key = self._plugin.at(uri, domain.host)
        await sr.patiently(lease.release, sr.folder.path, key, domain.host)
        self._plugin.wake(sr)

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
        return await attached.patiently(lease.fence, attached.folder.path, host)

    async def _acquire(self, uri: str, domain: Domain, writable: bool) -> None:
        """The lease first, then a merge is made to stop: who merges looks at leases after it has said so."""
        sr, key = self._plugin.at(uri, domain.host)
        folder = sr.folder
        raw = (await sr.run(folder.disk, key)).raw
        known = any(holder.host == domain.host for holder, _ in await sr.run(lease.others, folder.path, key))
        try:
            # several hosts may write to what is raw: they only keep it from being deleted
            await sr.patiently(lease.acquire, folder.path, key, domain, writable and not raw)
        except Taken as taken:
            raise ActivatedOnAnotherHost(taken.lease.host, taken.lease.dp) from taken
        if raw:
            return
        try:
            await sr.quiet(await self._chain(sr, key), domain.dp)
        except BaseException:
            if not known:
                await sr.patiently(lease.release, folder.path, key, domain.host)
            raise

    async def _chain(self, sr: Attached, key: str) -> list[str]:
        for _ in range(_WALKS - 1):
            try:
                return await sr.run(sr.folder.chain, key)
            except ApiError as error:
                if error.code != f"SR_BACKEND_FAILURE_{Failure.VDI_LOAD:d}":
                    raise
        return await sr.run(sr.folder.chain, key)
