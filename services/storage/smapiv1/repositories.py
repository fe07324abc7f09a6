"""SRs of a driver."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from services.storage.plugins.errors import plugin_failed
from services.storage.plugins.interface import Handle, Probed, SrStat, Unimplemented, Volume
from services.storage.plugins.skeleton import SrSkeleton
from services.storage.smapiv1.host import DriverHost
from services.storage.smapiv1.tags import forget_stale
from shared.errors import ApiError

if TYPE_CHECKING:
    from services.storage.smapiv1.plugin import Attached, DriverPlugin

log = logging.getLogger("storage.smapiv1")

_DELETES = "sr_delete"


class SrGroup(SrSkeleton):
    def __init__(self, plugin: DriverPlugin) -> None:
        self._plugin = plugin

    async def probe_on(self, host: str, configuration: dict[str, str], sm_config: dict[str, str]) -> list[Probed]:
        """The driver's text is the whole answer."""
        unsupported = plugin_failed("Operation 'sr_probe' not supported by this SR type")
        if not self._plugin.can("SR_PROBE"):
            raise unsupported
        try:
            found = await self._host(host).probe(self._plugin.program, configuration, sm_config)
        except Unimplemented:
            raise unsupported from None
        return [Probed(configuration=configuration, uuid="", raw=str(found))]

    async def create_on(
        self, host: str, uuid: str, configuration: dict[str, str], name: str, description: str, size: int
    ) -> dict[str, str]:
        """The row is there. The driver may change what the SR is attached with, in the host's PBD."""
        where = self._host(host)
        sr = await where.sr_ref(uuid)
        try:
            await where.sr_call(
                self._plugin.program, sr, "sr_create", str(size), device_config=configuration, master=True
            )
            pbd = await where.pbd(sr)
        except Unimplemented as error:
            await where.xapi.logout([sr])
            raise _unsupported(uuid) from error
        except ApiError:
            await where.xapi.logout([sr])
            raise
        return configuration if pbd is None else dict(pbd["device_config"])

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle:
        """What this boot has attached already is only found again: drivers forget, when they attach, who uses disks."""
        from services.storage.smapiv1.plugin import Attached

        where = self._host(host)
        await where.ref()
        at = Attached(host=where, sr=await where.sr_ref(uuid), uuid=uuid)
        where.configurations[at.sr] = configuration
        if not where.marks.is_attached(uuid):
            try:
                await where.sr_call(self._plugin.program, at.sr, "sr_attach", device_config=configuration)
            except Unimplemented as error:
                raise _unsupported(uuid) from error
            where.marks.attached(uuid)
        await forget_stale(at)
        return self._plugin.keep(at)

    async def detach(self, sr: Handle) -> None:
        at = self._plugin.of(sr)
        await self._ask(at, "sr_detach")
        await self._gone(sr, at)

    async def destroy(self, sr: Handle) -> None:
        at = self._plugin.of(sr)
        await self._ask(at, _DELETES)
        await self._gone(sr, at)

    async def stat(self, sr: Handle) -> SrStat:
        """Drivers without SR_UPDATE keep the figures right with each change."""
        at = self._plugin.of(sr)
        try:
            await at.host.sr_call(self._plugin.program, at.sr, "sr_update")
        except Unimplemented:
            log.info("SR %s: its driver has no sr_update", at.uuid)
        return await self.last_stat(sr)

    async def last_stat(self, sr: Handle) -> SrStat:
        at = self._plugin.of(sr)
        row = await at.host.xapi.call(at.sr, "SR.get_record", at.sr)
        size, used = int(row["physical_size"]), int(row["physical_utilisation"])
        return SrStat(
            uuid=at.uuid,
            free_space=size - used,
            total_space=size,
            name=row["name_label"],
            description=row["name_description"],
            virtual_allocation=int(row["virtual_allocation"]),
        )

    async def ls(self, sr: Handle) -> list[Volume]:
        at = self._plugin.of(sr)
        await self._ask(at, "sr_scan")
        return await self._plugin.volumes(at)

    async def _ask(self, at: Attached, command: str) -> None:
        try:
            await at.host.sr_call(self._plugin.program, at.sr, command)
        except Unimplemented as error:
            raise _unsupported(at.uuid) from error

    async def _gone(self, sr: Handle, at: Attached) -> None:
        at.host.marks.detached(at.uuid)
        at.host.configurations.pop(at.sr, None)
        self._plugin.forget(sr)
        await at.host.xapi.logout([at.sr])

    def _host(self, host: str) -> DriverHost:
        return self._plugin.hosts[host]


def _unsupported(sr: str) -> ApiError:
    return ApiError("SR_OPERATION_NOT_SUPPORTED", sr)
