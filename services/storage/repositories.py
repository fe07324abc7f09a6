"""The SRs that one host has, or should have, attached."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from services.storage.journal import Journal
from services.storage.plugins.interface import Handle, Plugin, Volume
from services.storage.plugins.interface import SrStat as Space
from services.storage.secret_settings import SecretOf, with_passwords, without_passwords
from services.storage.settle import settle
from shared.bus.contract import Record
from shared.bus.interface import BusError
from shared.contracts.storage import SrAttach, SrStat
from shared.errors import ApiError

log = logging.getLogger("storage.sr")


LookOut = Callable[[str], Awaitable[None]]
"""Waits until there is an SR type, or it is known that there is none."""


async def all_known(_: str) -> None:
    """Where SR types do not have to be found first."""


class Wanted(Record, frozen=True):
    """What an SR was attached with; kept until it is detached, without passwords that are secrets of the pool.
    `attaching`: a crash may have come between.
    """

    type: str
    device_config: dict[str, str]
    attaching: bool = False


class Repositories:
    """An SR that was attached stays wanted over restarts; while it cannot be attached, callers get the reason."""

    def __init__(
        self,
        host: str,
        plugins: Mapping[str, Plugin],
        journal: Journal,
        secret_of: SecretOf | None = None,
        look_out: LookOut = all_known,
    ) -> None:
        self.host = host
        self._look_out = look_out
        self._secret_of = secret_of
        self._plugins = plugins
        self._journal = journal
        self._prefix = f"sr/{host}/"
        self._wanted: dict[str, Wanted] = {
            key.removeprefix(self._prefix): msgspec.convert(value, Wanted)
            for key, value in journal.data.items()
            if key.startswith(self._prefix)
        }
        self._attached: dict[str, tuple[Plugin, Handle]] = {}
        self._suspended: dict[str, tuple[Plugin, Handle]] = {}
        self._failures: dict[str, ApiError] = {}

    def plugin(self, kind: str) -> Plugin:
        """Raises SR_UNKNOWN_DRIVER."""
        try:
            return self._plugins[kind]
        except KeyError:
            raise ApiError("SR_UNKNOWN_DRIVER", kind) from None

    async def found(self, kind: str) -> Plugin:
        """The same, of a service that has just started: waits for what it has not found yet."""
        await self._look_out(kind)
        return self.plugin(kind)

    def find(self, sr: str) -> tuple[Plugin, Handle]:
        """Raises SR_NOT_ATTACHED, or why the SR could not be attached again after a restart."""
        attached = self._attached.get(sr)
        if attached is None:
            raise self._failures.get(sr) or ApiError("SR_NOT_ATTACHED", sr)
        return attached

    def traceless(self, sr: str) -> bool:
        """See `Plugin.traceless`; False for what is not known."""
        wanted = self._wanted.get(sr)
        return wanted is not None and wanted.type in self._plugins and self._plugins[wanted.type].traceless

    def attached(self) -> list[str]:
        return list(self._attached)

    def missing(self) -> list[str]:
        """SRs that should be attached and are not."""
        return [sr for sr in self._wanted if sr not in self._attached]

    def unfound(self) -> list[str]:
        """Those of `missing` whose SR type is not there, or not yet."""
        return [sr for sr in self.missing() if self._wanted[sr].type not in self._plugins]

    async def attach(self, request: SrAttach) -> None:
        """Attaching one that is attached already changes nothing.

        Written down before it is begun: what it mounts is not forgotten by a crash.
        """
        if request.sr in self._attached:
            return
        plugin = await self.found(request.type)
        wanted = Wanted(type=request.type, device_config=request.device_config)
        before = self._wanted.get(request.sr)
        await self._write(request.sr, msgspec.structs.replace(wanted, attaching=before is None))
        try:
            handle = await self._attach(plugin, request, wanted)
        except BaseException:
            await settle(self._write(request.sr, before))
            raise
        self._wanted[request.sr] = wanted
        self._attached[request.sr] = (plugin, handle)
        self._failures.pop(request.sr, None)

    async def _attach(self, plugin: Plugin, request: SrAttach, wanted: Wanted) -> Handle:
        handle = await plugin.sr.attach(request.sr, request.device_config, self.host)
        try:
            await self._write(request.sr, wanted)
        except BaseException:  # nobody is told that it is attached
            await settle(plugin.sr.detach(handle))
            raise
        return handle

    async def attach_again(self, sr: str) -> bool:
        """After a restart. False: it failed, and why is kept for callers."""
        wanted = self._wanted[sr]
        try:
            settings = await self._settings(wanted.device_config)
        except BusError as error:
            log.info("SR %s is attached again once its password is known: %s", sr, error)
            self._failures[sr] = error
            return False
        try:
            plugin = await self.found(wanted.type)
            self._attached[sr] = (plugin, await plugin.sr.attach(sr, settings, self.host))
        except ApiError as error:
            if str(error) != str(self._failures.get(sr)):
                log.error("SR %s cannot be attached again: %s", sr, error)
            if wanted.attaching:  # nobody was told that it is attached
                await self.forget(sr)
            else:
                self._failures[sr] = error
            return False
        self._suspended.pop(sr, None)
        self._failures.pop(sr, None)
        if wanted.attaching:
            self._wanted[sr] = msgspec.structs.replace(wanted, attaching=False)
            await self._write(sr, self._wanted[sr])
        return True

    async def _settings(self, kept: Mapping[str, str]) -> dict[str, str]:
        """With passwords. The plug-in says so of a secret that is gone, if it needs it."""
        try:
            return dict(kept) if self._secret_of is None else await with_passwords(kept, self._secret_of)
        except ApiError as error:
            if error.code != "UUID_INVALID":
                raise
            return dict(kept)

    def suspend(self, sr: str, why: ApiError) -> None:
        """It stays wanted, and is to be attached again."""
        if sr in self._attached:
            self._suspended[sr] = self._attached.pop(sr)
        self._failures[sr] = why

    async def detach(self, sr: str) -> None:
        """Detaching one that is not attached changes nothing."""
        if sr not in self._wanted:
            return
        attached = self._attached.get(sr) or self._suspended.get(sr)
        if attached is not None:
            plugin, handle = attached
            await plugin.sr.detach(handle)
        await self.forget(sr)

    async def forget(self, sr: str) -> None:
        await self._write(sr, None)
        self._wanted.pop(sr, None)
        self._attached.pop(sr, None)
        self._suspended.pop(sr, None)
        self._failures.pop(sr, None)

    async def stat(self, sr: str) -> SrStat:
        plugin, handle = self.find(sr)
        return await self._stat(plugin, handle, await plugin.sr.stat(handle))

    async def last_stat(self, sr: str, listed: Sequence[Volume] | None = None) -> SrStat:
        """Without asking the medium where that takes long. `listed`: the disks, if they are known."""
        plugin, handle = self.find(sr)
        return await self._stat(plugin, handle, await plugin.sr.last_stat(handle), listed)

    @staticmethod
    async def _stat(plugin: Plugin, handle: Handle, space: Space, listed: Sequence[Volume] | None = None) -> SrStat:
        allocated = space.virtual_allocation
        if allocated is None:
            allocated = sum(
                volume.virtual_size for volume in (await plugin.sr.ls(handle) if listed is None else listed)
            )
        return SrStat(
            physical_size=space.total_space,
            physical_utilisation=space.total_space - space.free_space,
            virtual_allocation=allocated,
            clustered=space.clustered,
            health=space.health,
        )

    async def _write(self, sr: str, wanted: Wanted | None) -> None:
        value: Any = None
        if wanted is not None:
            kept = without_passwords(wanted.device_config)
            value = msgspec.to_builtins(msgspec.structs.replace(wanted, device_config=kept))
        await self._journal.write({self._prefix + sr: value})
