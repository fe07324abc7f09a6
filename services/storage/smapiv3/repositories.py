"""SRs: the group of methods on repositories, by the scripts of a volume plug-in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from services.storage.plugins.interface import Handle, Probed, SrStat, Unimplemented, Volume
from services.storage.plugins.skeleton import SrSkeleton
from services.storage.smapiv3 import interface_v5 as v5
from services.storage.smapiv3 import metadata
from services.storage.smapiv3.attached import AttachedSrs, Sr, named
from services.storage.smapiv3.interface_v5 import HealthState, ProbeResult, VolumeRecord
from services.storage.smapiv3.state import AttachedSr
from services.storage.smapiv3.volumes import VolumeMethods
from shared.contracts.storage import Health
from shared.errors import ApiError

log = logging.getLogger("storage.smapiv3")

RETRIES = 3
RETRY_INTERVAL = 1.0
"""Seconds between two looks at an SR that cannot be reached."""

HEALTH: dict[HealthState, Health] = {
    "Healthy": "healthy",
    "Recovering": "recovering",
    "Unreachable": "unreachable",
    "Unavailable": "unavailable",
}
ADVICE: dict[HealthState, str] = {"Unavailable": "try reboot", "Unreachable": "try again later"}


class SrMethods(SrSkeleton):
    def __init__(self, srs: AttachedSrs, volumes: VolumeMethods) -> None:
        self._srs, self._volumes = srs, volumes
        self._seen: dict[Handle, SrStat] = {}
        """What the last listing has found."""

    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        return await self.probe_on("", configuration, {})

    async def probe_on(self, host: str, configuration: dict[str, str], sm_config: dict[str, str]) -> list[Probed]:
        return probed(await self._srs.scripts.calls(host)(v5.SR.probe, configuration))

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        return await self.create_on("", uuid, configuration, name, description, 0)

    async def create_on(
        self, host: str, uuid: str, configuration: dict[str, str], name: str, description: str, size: int
    ) -> dict[str, str]:
        return await self._srs.scripts.calls(host, uuid)(v5.SR.create, uuid, configuration, name, description)

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle:
        """One that the plug-in still has attached, from before a restart of the service, keeps its handle."""
        handle = named(host, uuid)
        self._seen.pop(handle, None)
        if not await self._still_attached(handle, configuration):
            told = await self._srs.scripts.calls(host, uuid)(v5.SR.attach, configuration)
            await self._srs.add(host, uuid, AttachedSr(handle=told, configuration=configuration))
        await self._volumes.recover(handle)
        return handle

    async def _still_attached(self, handle: Handle, configuration: dict[str, str]) -> bool:
        host, _, uuid = handle.partition(" ")
        known = self._srs.state.attached(self._srs.kind, host, uuid)
        if known is None or known.configuration != configuration:
            return False
        try:
            await self._stat(self._srs.find(handle))
        except (ApiError, Unimplemented) as error:
            log.info("SR %s is attached anew, because it cannot be used as it was: %s", uuid, error)
            return False
        return True

    async def detach(self, sr: Handle) -> None:
        host, _, uuid = sr.partition(" ")
        known = self._srs.state.attached(self._srs.kind, host, uuid)
        if known is None:
            return
        try:
            await self._srs.scripts.calls(host, uuid)(v5.SR.detach, known.handle)
        except ApiError as error:
            if error.code != "SR_NOT_ATTACHED":
                raise
        await self._forget(sr)

    async def destroy(self, sr: Handle) -> None:
        """A plug-in destroys the volumes as well, so it is asked only when there are none."""
        found = self._srs.find(sr)
        if await found.calls(v5.SR.ls, found.handle):
            raise ApiError("SR_NOT_EMPTY")
        await found.calls(v5.SR.destroy, found.handle)
        await self._srs.state.forget_sr(found.uuid)
        await self._forget(sr)

    async def stat(self, sr: Handle) -> SrStat:
        found = self._srs.find(sr)
        said = await self._stat(found)
        listed = await self._visible(found) if said.health[0] == "Healthy" else []
        return _stat(found, said, listed)

    async def last_stat(self, sr: Handle) -> SrStat:
        return self._seen.get(sr) or await self.stat(sr)

    async def ls(self, sr: Handle) -> list[Volume]:
        """Raises SR_UNHEALTHY: the listing of an SR that is not healthy may lack disks that are there."""
        found = self._srs.find(sr)
        said = await self._healthy(found)
        listed = await self._visible(found)
        self._seen[sr] = _stat(found, said, listed)
        return [metadata.volume(found.uuid, each, self._srs.schemes.ordered(each.uri)) for each in listed]

    async def set_name(self, sr: Handle, name: str, description: str) -> None:
        found = self._srs.find(sr)
        await found.calls(v5.SR.set_name, found.handle, name)
        await found.calls(v5.SR.set_description, found.handle, description)

    async def _healthy(self, sr: Sr) -> v5.SrStat:
        """One that cannot be reached may come back in a moment."""
        for _ in range(RETRIES):
            said = await self._stat(sr)
            if said.health[0] != "Unreachable":
                break
            await asyncio.sleep(RETRY_INTERVAL)
        else:
            said = await self._stat(sr)
        state, text = said.health
        if state != "Healthy":
            log.warning("SR %s is not healthy: %s %s", sr.uuid, state, text)
            raise ApiError("SR_UNHEALTHY", sr.uuid, state, ADVICE.get(state, text))
        return said

    async def _stat(self, sr: Sr) -> v5.SrStat:
        return await sr.calls(v5.SR.stat, sr.handle)

    async def _visible(self, sr: Sr) -> list[VolumeRecord]:
        return metadata.visible(await sr.calls(v5.SR.ls, sr.handle), self._srs.state.temporaries(sr.uuid))

    async def _forget(self, sr: Handle) -> None:
        self._seen.pop(sr, None)
        await self._srs.remove(sr)


def _stat(sr: Sr, said: v5.SrStat, listed: Sequence[VolumeRecord]) -> SrStat:
    return SrStat(
        uuid=said.uuid or sr.uuid,
        free_space=said.free_space,
        total_space=said.total_space,
        name=said.name,
        description=said.description,
        clustered=said.clustered,
        health=HEALTH[said.health[0]],
        virtual_allocation=sum(each.virtual_size for each in listed),
    )


def probed(results: Sequence[ProbeResult]) -> list[Probed]:
    """Raises SCRIPT_FAILED for what says two things at once."""
    wrong = [text for each in results if (text := _contradiction(each))]
    if wrong:
        raise ApiError("SCRIPT_FAILED", "SR.probe", "; ".join(wrong))
    return [_probed(each) for each in results]


def _contradiction(result: ProbeResult) -> str:
    uuid = result.configuration.get("sr_uuid")
    if uuid is not None and not result.complete:
        return f"a configuration with a uuid cannot be incomplete: {uuid}"
    if uuid is None and result.sr is not None:
        return f"a configuration for an SR that is there needs its uuid: {result.sr.name}"
    return ""


def _probed(result: ProbeResult) -> Probed:
    found = result.sr
    if found is None:
        return Probed(
            configuration=result.configuration, uuid="", complete=result.complete, extra_info=result.extra_info
        )
    return Probed(
        configuration=result.configuration,
        uuid=found.uuid or result.configuration["sr_uuid"],
        complete=result.complete,
        name=found.name,
        description=found.description,
        total_space=found.total_space,
        free_space=found.free_space,
        clustered=found.clustered,
        health=HEALTH[found.health[0]],
        extra_info=result.extra_info,
    )
