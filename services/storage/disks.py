"""What is done to disks nobody writes to: create, delete, clone, copy, grow, list."""

from __future__ import annotations

from collections.abc import Mapping

from services.storage.datapaths import COPY, Datapaths
from services.storage.locks import Locks
from services.storage.plugins.errors import in_use
from services.storage.plugins.interface import ActivatedOnAnotherHost, NewVolume, Report, Volume
from services.storage.repositories import Repositories
from services.storage.settle import settle
from shared.contracts.storage import DiskOpen, SrScan, VdiClone, VdiCreate, VdiInfo, VdiRef, VdiResize

TYPE = "vdi-type"
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
            return SrScan(disks=[info(volume) for volume in volumes], stat=await self._repositories.stat(sr))

    async def create(self, request: VdiCreate) -> VdiInfo:
        """Repeating it with the same uuid and size gives the same disk."""
        async with self._locks.disks([(request.sr, request.uuid)]):
            plugin, handle = self._repositories.find(request.sr)
            new = NewVolume(
                uuid=request.uuid,
                name=request.name_label,
                description=request.name_description,
                keys=keys(request.type, request.sm_config),
            )
            return info(await plugin.volume.create(handle, new, request.virtual_size))

    async def destroy(self, request: VdiRef) -> None:
        async with self._locks.disks([(request.sr, request.location)]):
            plugin, handle = self._repositories.find(request.sr)
            self._refuse(request.location, "destroy", self._datapaths.users(request.sr, request.location))
            try:
                await plugin.volume.destroy(handle, request.location)
            except ActivatedOnAnotherHost as error:
                raise in_use(request.location, "destroy") from error

    async def resize(self, request: VdiResize) -> VdiInfo:
        async with self._locks.disks([(request.sr, request.location)]):
            plugin, handle = self._repositories.find(request.sr)
            self._refuse(request.location, "resize", self._datapaths.users(request.sr, request.location))
            try:
                return info(await plugin.volume.resize(handle, request.location, request.virtual_size))
            except ActivatedOnAnotherHost as error:
                raise in_use(request.location, "resize") from error

    async def clone(self, request: VdiClone) -> VdiInfo:
        operation = "snapshot" if request.snapshot else "clone"
        async with self._locks.disks([(request.sr, request.location), (request.sr, request.uuid)]):
            plugin, handle = self._repositories.find(request.sr)
            self._refuse(request.location, operation, self._datapaths.writers(request.sr, request.location))
            branch = plugin.volume.snapshot if request.snapshot else plugin.volume.clone
            try:
                return info(await branch(handle, request.location, _named(request)))
            except ActivatedOnAnotherHost as error:
                raise in_use(request.location, operation) from error

    async def copy(self, request: VdiClone, report: Report) -> VdiInfo:
        """Cancelled: nothing is left. The source may have readers meanwhile, no writer."""
        dp = COPY + request.uuid
        await self._datapaths.open([DiskOpen(dp=dp, sr=request.sr, location=request.location, writable=False)])
        try:
            async with self._locks.disks([(request.sr, request.uuid)]):
                plugin, handle = self._repositories.find(request.sr)
                return info(await plugin.volume.copy(handle, request.location, _named(request), report))
        finally:
            await settle(self._datapaths.close([dp]))

    @staticmethod
    def _refuse(location: str, operation: str, holders: list[str]) -> None:
        if holders:
            raise in_use(location, operation)


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
    )


def keys(kind: str, sm_config: Mapping[str, str]) -> dict[str, str]:
    """What the API keeps with a disk, as a SMAPIv3 plug-in stores it."""
    return {TYPE: kind} | {SM_CONFIG + key: value for key, value in sm_config.items()}


def _named(request: VdiClone) -> NewVolume:
    return NewVolume(uuid=request.uuid, name=request.name_label)
