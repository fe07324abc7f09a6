"""What is done to disks: create, delete, clone, copy, grow, list, and what only some SR types can."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from services.storage.datapaths import COPY, Datapaths
from services.storage.elsewhere import Elsewhere
from services.storage.locks import Locks
from services.storage.plugins.errors import in_use, unimplemented
from services.storage.plugins.interface import (
    ActivatedOnAnotherHost,
    Handle,
    NewVolume,
    Plugin,
    Report,
    Unimplemented,
    Volume,
)
from services.storage.repositories import Repositories
from services.storage.settle import settle
from shared.contracts.storage import (
    ChangedBlocks,
    DiskOpen,
    Epoch,
    SrScan,
    StaticConfig,
    VdiClone,
    VdiCreate,
    VdiDescription,
    VdiInfo,
    VdiIntroduce,
    VdiList,
    VdiPair,
    VdiPersistence,
    VdiRef,
    VdiResize,
)

log = logging.getLogger("storage.disks")

TYPE = "vdi-type"
CONTENT_ID = "content_id"
SM_CONFIG = "_sm_config_"


class Disks:
    def __init__(self, repositories: Repositories, datapaths: Datapaths, locks: Locks) -> None:
        self._repositories = repositories
        self._datapaths = datapaths
        self._locks = locks

    async def scan(self, sr: str) -> SrScan:
        async with self._locks.shared(sr):
            plugin, handle = self._repositories.find(sr)
            volumes = await plugin.sr.ls(handle)
            stat = await self._repositories.last_stat(sr, volumes)
            return SrScan(disks=[info(volume) for volume in volumes], stat=stat)

    async def create(self, request: VdiCreate) -> VdiInfo:
        """Repeating it with the same uuid and size gives the same disk."""
        new = NewVolume(
            uuid=request.uuid,
            name=request.name_label,
            description=request.name_description,
            keys=keys(request.type, request.sm_config) | _facts(request),
            sharable=request.sharable,
            read_only=request.read_only,
        )
        async with self._working(request.sr, request.uuid, operation="create") as (plugin, handle):
            return info(await plugin.volume.create(handle, new, request.virtual_size))

    async def destroy(self, request: VdiRef) -> None:
        async with self._working(request.sr, request.location, operation="destroy") as (plugin, handle):
            self._refuse(request.location, "destroy", self._datapaths.users(request.sr, request.location))
            await plugin.volume.destroy(handle, request.location)

    async def resize(self, request: VdiResize) -> VdiInfo:
        async with self._working(request.sr, request.location, operation="resize") as (plugin, handle):
            if "VDI_RESIZE_ONLINE" not in plugin.query().features:
                self._refuse(request.location, "resize", self._datapaths.users(request.sr, request.location))
            return info(await plugin.volume.resize(handle, request.location, request.virtual_size))

    async def clone(self, request: VdiClone) -> VdiInfo:
        operation = "snapshot" if request.snapshot else "clone"
        async with self._working(request.sr, request.location, request.uuid, operation=operation) as (plugin, handle):
            if not plugin.branches_in_use:
                self._refuse(request.location, operation, self._datapaths.writers(request.sr, request.location))
            branch = plugin.volume.snapshot if request.snapshot else plugin.volume.clone
            made = await branch(handle, request.location, _named(request))
            return info(await _related(plugin, handle, made, request.location if request.snapshot else ""))

    async def copy(self, request: VdiClone, report: Report) -> VdiInfo:
        """Cancelled: nothing is left. The source may have readers meanwhile, no writer."""
        dp = COPY + request.uuid
        await self._datapaths.open([DiskOpen(dp=dp, sr=request.sr, location=request.location, writable=False)])
        try:
            async with self._working(request.sr, request.uuid, operation="copy", of=request.location) as (
                plugin,
                handle,
            ):
                made = await plugin.volume.copy(handle, request.location, _named(request), report)
                return info(await _related(plugin, handle, made, ""))
        finally:
            await settle(self._datapaths.close([dp]))

    # -- what only some plug-ins can ---------------------------------------------------------------------------------

    async def stat(self, request: VdiRef) -> VdiInfo:
        async with self._working(request.sr, request.location, operation="update") as (plugin, handle):
            return info(await plugin.volume.update(handle, request.location))

    async def introduce(self, request: VdiIntroduce) -> VdiInfo:
        async with self._working(request.sr, request.location, operation="introduce") as (plugin, handle):
            given = {SM_CONFIG + key: value for key, value in request.sm_config.items()}
            return info(await plugin.volume.introduce(handle, request.uuid, request.location, given))

    async def describe(self, request: VdiDescription) -> None:
        """Nothing is lost where the plug-in keeps no names: the database has them."""
        changed: dict[str, str | None] = {}
        if request.content_id is not None:
            changed[CONTENT_ID] = request.content_id
        async with self._working(request.sr, request.location, operation="update") as (plugin, handle):
            if request.sm_config is not None:
                before = info(await plugin.volume.stat(handle, request.location)).sm_config
                changed |= {SM_CONFIG + key: request.sm_config.get(key) for key in {*before, *request.sm_config}}
            try:
                if request.name_label is not None or request.name_description is not None:
                    await plugin.volume.describe(handle, request.location, request.name_label, request.name_description)
                if changed:
                    await plugin.volume.set(handle, request.location, changed)
            except Unimplemented:
                return

    async def revert(self, request: VdiPair) -> VdiInfo:
        async with self._working(request.sr, request.location, request.other, operation="revert") as (plugin, handle):
            self._refuse(request.other, "revert", self._datapaths.users(request.sr, request.other))
            return info(await plugin.volume.revert(handle, request.location, request.other))

    async def compose(self, request: VdiPair) -> None:
        async with self._working(request.sr, request.location, request.other, operation="compose") as (plugin, handle):
            await plugin.volume.compose(handle, request.location, request.other)

    async def similar_content(self, request: VdiRef) -> VdiList:
        async with self._working(request.sr, request.location, operation="similar_content") as (plugin, handle):
            return VdiList(disks=[info(each) for each in await plugin.volume.similar_content(handle, request.location)])

    async def enable_cbt(self, request: VdiRef) -> None:
        async with self._working(request.sr, request.location, operation="enable_cbt") as (plugin, handle):
            await plugin.volume.enable_cbt(handle, request.location)

    async def disable_cbt(self, request: VdiRef) -> None:
        async with self._working(request.sr, request.location, operation="disable_cbt") as (plugin, handle):
            await plugin.volume.disable_cbt(handle, request.location)

    async def data_destroy(self, request: VdiRef) -> None:
        async with self._working(request.sr, request.location, operation="data_destroy") as (plugin, handle):
            self._refuse(request.location, "data_destroy", self._datapaths.users(request.sr, request.location))
            await plugin.volume.data_destroy(handle, request.location)

    async def changed_blocks(self, request: VdiPair) -> ChangedBlocks:
        operation = "list_changed_blocks"
        async with self._working(request.sr, request.location, request.other, operation=operation) as (plugin, handle):
            found = await plugin.volume.changed_blocks(handle, request.location, request.other)
            return ChangedBlocks(bitmap=base64.b64encode(found.bitmap).decode(), granularity=found.granularity)

    async def generate_config(self, request: VdiRef) -> StaticConfig:
        async with self._working(request.sr, request.location, operation="generate_config") as (plugin, handle):
            return StaticConfig(config=await plugin.volume.generate_config(handle, request.location))

    async def set_persistent(self, request: VdiPersistence) -> None:
        async with self._working(request.sr, request.location, operation="set_on_boot") as (plugin, handle):
            await plugin.volume.set_persistent(handle, request.location, request.persistent)

    async def epoch(self, request: Epoch) -> None:
        """Where a plug-in has no idea of runs, a disk keeps what it is told."""
        async with self._working(request.sr, request.location, operation="epoch") as (plugin, handle):
            try:
                await plugin.volume.epoch(handle, request.location, request.vm, request.begin, request.persistent)
            except Unimplemented:
                if not request.persistent:
                    raise

    @asynccontextmanager
    async def _working(
        self, sr: str, *locations: str, operation: str, of: str = ""
    ) -> AsyncIterator[tuple[Plugin, Handle]]:
        """Nobody else works on the disks meanwhile. What a plug-in raises becomes the catalogue's, about the disk `of`,
        the first if it is not said.
        """
        async with self._locks.disks([(sr, location) for location in locations]):
            plugin, handle = self._repositories.find(sr)
            try:
                yield plugin, handle
            except ActivatedOnAnotherHost as error:
                raise Elsewhere(of or locations[0], operation, error.host) from error
            except Unimplemented as error:
                log.info("SR %s cannot %s: %s", sr, operation, error)
                raise unimplemented(sr) from error

    @staticmethod
    def _refuse(location: str, operation: str, holders: list[str]) -> None:
        if holders:
            raise in_use(location, operation)


FAMILY: Final = ("is_a_snapshot", "snapshot_of", "snapshot_time")


async def _related(plugin: Plugin, sr: Handle, made: Volume, origin: str) -> Volume:
    """With what it says of its family: a snapshot of `origin` (key), "" for nobody's, whatever its source was. A
    plug-in that keeps no such things leaves them to the rows.
    """
    if (made.keys.get("is_a_snapshot") == "true") == bool(origin) and made.keys.get("snapshot_of", "") == origin:
        return made
    facts = ("true", origin, time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime())) if origin else (None, None, None)
    keys: dict[str, str | None] = dict(zip(FAMILY, facts, strict=True))
    try:
        await plugin.volume.set(sr, made.key, keys)
    except Unimplemented:
        return made
    kept = {name: value for name, value in (made.keys | keys).items() if value is not None}
    return msgspec.structs.replace(made, keys=kept)


def info(volume: Volume) -> VdiInfo:
    return VdiInfo(
        uuid=volume.uuid,
        location=volume.key,
        virtual_size=volume.virtual_size,
        physical_utilisation=volume.physical_utilisation,
        name_label=volume.name,
        name_description=volume.description,
        type=volume.keys.get(TYPE, "user"),
        read_only=not volume.read_write,
        sm_config={
            key.removeprefix(SM_CONFIG): value for key, value in volume.keys.items() if key.startswith(SM_CONFIG)
        },
        sharable=volume.sharable,
        managed=volume.managed,
        cbt_enabled=volume.cbt_enabled,
        is_a_snapshot=volume.keys.get("is_a_snapshot") == "true",
        snapshot_of=volume.keys.get("snapshot_of", ""),
        snapshot_time=volume.keys.get("snapshot_time", ""),
        metadata_of_pool=volume.keys.get("metadata_of_pool", ""),
        content_id=volume.keys.get(CONTENT_ID, ""),
    )


def keys(kind: str, sm_config: Mapping[str, str]) -> dict[str, str]:
    """What the API keeps with a disk, as a SMAPIv3 plug-in stores it."""
    return {TYPE: kind} | {SM_CONFIG + key: value for key, value in sm_config.items()}


def _facts(request: VdiCreate) -> dict[str, str]:
    """What the caller says of a new disk, as far as it says anything."""
    said = {
        "is_a_snapshot": "true" if request.is_a_snapshot else "",
        "snapshot_of": request.snapshot_of,
        "snapshot_time": request.snapshot_time,
        "metadata_of_pool": request.metadata_of_pool,
    }
    return {key: value for key, value in said.items() if value}


def _named(request: VdiClone) -> NewVolume:
    return NewVolume(uuid=request.uuid, name=request.name_label, params=request.driver_params)
