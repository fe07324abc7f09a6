"""The storage of one host: its SRs, its disks and its datapaths, behind one set of locks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from services.storage.datapaths import Checkpoint, Datapaths
from services.storage.disks import Disks
from services.storage.journal import Journal
from services.storage.locks import Locks
from services.storage.plugins.errors import implemented, is_of_medium
from services.storage.plugins.interface import Plugin, Probed, Unimplemented
from services.storage.repositories import LookOut, Repositories, all_known
from services.storage.secret_settings import SecretOf
from shared.contracts.storage import (
    ProbedSr,
    ProbeResult,
    SrAttach,
    SrCreate,
    SrCreated,
    SrName,
    SrProbe,
    SrProbed,
    SrStat,
)
from shared.errors import ApiError

log = logging.getLogger("storage.host")


def _nowhere(_: str) -> None:
    """The checkpoint of a running service."""


class HostStorage:
    def __init__(
        self,
        host: str,
        plugins: Mapping[str, Plugin],
        journal: Journal,
        checkpoint: Checkpoint = _nowhere,
        secret_of: SecretOf | None = None,
        look_out: LookOut = all_known,
    ) -> None:
        self.host = host
        self.locks = Locks()
        self.repositories = Repositories(host, plugins, journal, secret_of, look_out)
        self.datapaths = Datapaths(self.repositories, self.locks, journal, checkpoint)
        self.disks = Disks(self.repositories, self.datapaths, self.locks)
        self._journal = journal

    async def start(self, boot: str) -> None:
        """Before the first `retry`. `boot`: see `services.storage.boot`; after a reboot nothing is open."""
        key = f"boot/{self.host}"
        if self._journal.data.get(key) in (None, boot):
            await self.datapaths.abandon(self.datapaths.own(), {key: boot})
        else:
            await self.datapaths.rebooted({key: boot})

    async def retry(self) -> None:
        """Attaches again what should be attached and is not, and repairs what was interrupted there."""
        await self._notice_lost()
        await self.attach_again(self.repositories.missing())
        await self.datapaths.close_leaked()

    async def attach_again(self, srs: Sequence[str]) -> None:
        """Each of them, if it should be attached and is not. Whoever asks for one meanwhile waits for it."""
        await asyncio.gather(*(self._attach_again(sr) for sr in srs))

    async def _notice_lost(self) -> None:
        """An SR whose medium went away under it is to be attached again. While somebody works in it that has to wait:
        what works there may hang with the medium.
        """
        for sr in self.repositories.attached():
            plugin, handle = self.repositories.find(sr)
            why = await plugin.sr.lost(handle)
            if why is not None and self.locks.idle(sr):
                async with self.locks.sr(sr):
                    log.error("SR %s has lost its medium and is attached again: %s", sr, why)
                    self.repositories.suspend(sr, why)

    async def _attach_again(self, sr: str) -> None:
        async with self.locks.sr(sr):
            if sr in self.repositories.missing() and await self.repositories.attach_again(sr):
                try:
                    await self.datapaths.recover(sr)
                except ApiError as error:
                    log.error("SR %s is attached, but its datapaths cannot be recovered: %s", sr, error)
                    self.repositories.suspend(sr, error)

    async def probe(self, request: SrProbe) -> SrProbed:
        plugin = await self.repositories.found(request.type)
        with implemented(request.type):
            found = await plugin.sr.probe_on(self.host, request.device_config, request.sm_config)
        raw = next((each.raw for each in found if each.raw), "")
        return SrProbed(raw=raw, results=[] if raw else [_result(each) for each in found])

    async def create_sr(self, request: SrCreate) -> SrCreated:
        async with self.locks.sr(request.sr):
            plugin = await self.repositories.found(request.type)
            with implemented(request.sr):
                configuration = await plugin.sr.create_on(
                    self.host,
                    request.sr,
                    request.device_config,
                    request.name_label,
                    request.name_description,
                    request.physical_size,
                )
            return SrCreated(device_config=configuration)

    async def stat(self, sr: str) -> SrStat:
        async with self.locks.shared(sr):
            return await self.repositories.stat(sr)

    async def set_name(self, request: SrName) -> None:
        """Nothing is lost where the plug-in keeps no names: the database has them."""
        async with self.locks.shared(request.sr):
            plugin, handle = self.repositories.find(request.sr)
            try:
                await plugin.sr.set_name(handle, request.name_label, request.name_description)
            except Unimplemented:
                return

    async def attach_sr(self, request: SrAttach) -> SrStat:
        async with self.locks.sr(request.sr):
            if request.sr not in self.repositories.attached():
                await self.repositories.attach(request)
                try:
                    await self.datapaths.recover(request.sr)
                except ApiError:
                    await self.repositories.detach(request.sr)
                    raise
            return await self.repositories.last_stat(request.sr)

    async def detach_sr(self, sr: str) -> None:
        """What is leaked only because the medium cannot be written to hinders nobody: it is let go of when the SR is
        attached again.
        """
        self._refuse_used(sr)  # before waiting for those who work on its disks
        async with self.locks.sr(sr):
            self._refuse_used(sr)
            for failure in await self.datapaths.let_go(sr):
                if not is_of_medium(failure):
                    log.error("SR %s cannot be detached: %s", sr, failure)
                    raise ApiError("SR_DEVICE_IN_USE") from failure
            await self.repositories.detach(sr)

    async def destroy_sr(self, sr: str) -> None:
        self._refuse_used(sr)
        async with self.locks.sr(sr):
            self._refuse_used(sr)
            if await self.datapaths.let_go(sr):
                raise ApiError("SR_DEVICE_IN_USE")
            plugin, handle = self.repositories.find(sr)
            await plugin.sr.destroy(handle)
            await self.repositories.forget(sr)

    async def fence(self, host: str) -> int:
        """Breaks what another host has activated, in every SR attached here. Returns how many leases that were."""
        if host == self.host:
            raise ApiError("HOST_IS_LIVE", host)
        count = 0
        for sr in self.repositories.attached():
            async with self.locks.shared(sr):
                plugin, handle = self.repositories.find(sr)
                count += await plugin.datapath.fence(handle, host)
        return count

    def _refuse_used(self, sr: str) -> None:
        users = self.datapaths.working(sr)
        if users:
            log.info("SR %s is in use by %s", sr, ", ".join(users))
            raise ApiError("SR_DEVICE_IN_USE")


def _result(found: Probed) -> ProbeResult:
    sr = ProbedSr(
        uuid=found.uuid,
        name_label=found.name,
        name_description=found.description,
        total_space=found.total_space,
        free_space=found.free_space,
        clustered=found.clustered,
        health=found.health,
    )
    return ProbeResult(
        configuration=found.configuration,
        complete=found.complete,
        sr=sr if found.uuid else None,
        extra_info=found.extra_info,
    )
