"""SR types that are a folder of images on a medium which has to be mounted first: `ext`, `nfs`, `smb` and `memory`.

A type says what is mounted and how (`Medium`). Mounting, and finding the mount again, is the same for all; the disks
are those of the type `file`. The SR is the folder `<uuid>` of the medium, as with SM's drivers: several SRs can share
an export, and a mount point on which nothing is mounted has no such folder, so it is never taken for the SR.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid as uuids
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.interface import Datapath, Handle, Plugin, Probed, SrStat, Volume, VolumeMethods
from services.storage.plugins.mounted_point import Failures, Mount, Mounted, ensure, mounted_at, release, visit
from services.storage.plugins.skeleton import SrSkeleton
from services.storage.settle import settle, settle_or_undo
from shared.bus.contract import Record
from shared.contracts.storage import DriverInfo
from shared.errors import ApiError

log = logging.getLogger("storage.mounted")


class Kind(Record, frozen=True):
    """What an SR type says of itself. `features`: besides those of its disks, but for those that it `lacks`.

    `configuration`: device_config keys.

    `volatile`: the medium is empty whenever it is mounted, and lasts as long as the mount.
    """

    type: str
    name: str
    description: str
    configuration: dict[str, str]
    failures: Failures
    features: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    volatile: bool = False


class Medium(Protocol):
    """What the types differ in. `uuid`: of the SR. Methods raise `ApiError` for a configuration that cannot be."""

    @property
    def kind(self) -> Kind: ...

    def mount(self, configuration: dict[str, str], uuid: str) -> Mount:
        """How the medium is mounted."""
        ...

    def same(self, mount: Mount, found: Mounted) -> bool:
        """Whether what is mounted is that medium."""
        ...

    async def check(self, configuration: dict[str, str], uuid: str) -> None:
        """Before it is mounted for an SR: that it can be that SR's medium."""
        ...

    async def prepare(self, configuration: dict[str, str], uuid: str) -> None:
        """Before an SR is made: the medium can be mounted afterwards. Repeating it changes nothing."""
        ...

    async def erase(self, configuration: dict[str, str], uuid: str) -> None:
        """After an SR was destroyed and unmounted."""
        ...

    async def probe(self, configuration: dict[str, str]) -> list[Probed] | None:
        """What can be said without mounting anything. None: it has to be mounted."""
        ...


class MediumSkeleton:
    """A medium that needs nothing but to be mounted."""

    def same(self, mount: Mount, found: Mounted) -> bool:
        return found.source == mount.source

    async def check(self, configuration: dict[str, str], uuid: str) -> None:
        """Mounting tells."""

    async def prepare(self, configuration: dict[str, str], uuid: str) -> None:
        """It is there already."""

    async def erase(self, configuration: dict[str, str], uuid: str) -> None:
        """It belongs to somebody else."""

    async def probe(self, configuration: dict[str, str]) -> list[Probed] | None:
        return None


class _Attached(Record, frozen=True):
    """`mounted`: what the kernel said of the mount, None if it was gone at once. `recognised`: as the medium."""

    uuid: str
    host: str
    place: Path
    configuration: dict[str, str]
    mounted: Mounted | None
    recognised: bool


class MountedPlugin:
    """`files`: makes the plug-in of the type `file` that is given the mounted folder. `root`: folder for the mount
    points, `<root>/<host>/<SR>`, which other services may read.
    """

    def __init__(self, medium: Medium, files: Callable[[], Plugin], root: Path) -> None:
        self.medium = medium
        self.make_files = files
        self.files = files()
        self.root = root
        self.attached: dict[Handle, _Attached] = {}
        self.sr = _Sr(self)

    @property
    def volume(self) -> VolumeMethods:
        return self.files.volume

    @property
    def datapath(self) -> Datapath:
        return self.files.datapath

    @property
    def traceless(self) -> bool:
        return False

    @property
    def branches_in_use(self) -> bool:
        return self.files.branches_in_use

    def query(self) -> DriverInfo:
        """What the disks can is what those of the type `file` can."""
        kind, files = self.medium.kind, self.files.query()
        return msgspec.structs.replace(
            files,
            type=kind.type,
            name=kind.name,
            description=kind.description,
            features={
                name: version
                for name, version in (files.features | dict.fromkeys(kind.features, 1)).items()
                if name not in kind.lacks
            },
            configuration=kind.configuration,
        )

    async def close(self) -> None:
        """What is mounted stays: QEMU has files open there."""
        await self.files.close()

    def place(self, host: str, uuid: str) -> Path:
        return self.root / host / uuid

    @property
    def visited(self) -> Path:
        """Where media are mounted that only this process looks at."""
        return self.root / "visit"


class _Sr(SrSkeleton):
    def __init__(self, plugin: MountedPlugin) -> None:
        self._plugin = plugin
        self._medium = plugin.medium
        self._failures = plugin.medium.kind.failures

    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        found = await self._medium.probe(configuration)
        if found is not None:
            return found
        async with visit(self._medium.mount(configuration, ""), self._plugin.visited, self._failures) as root:
            return await self._look(root, configuration)

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        mount = self._medium.mount(configuration, uuid)
        await self._medium.prepare(configuration, uuid)
        if self._medium.kind.volatile:
            return configuration
        async with visit(mount, self._plugin.visited, self._failures) as root:
            await self._make(root / uuid, uuid, name, description)
        return configuration

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle:
        mount, place = self._medium.mount(configuration, uuid), self._plugin.place(host, uuid)
        fresh = mounted_at(place) is None

        def attached() -> _Attached:
            found = mounted_at(place)
            return _Attached(
                uuid=uuid,
                host=host,
                place=place,
                configuration=configuration,
                mounted=found,
                recognised=found is not None and self._medium.same(mount, found),
            )

        async def undo(handle: Handle) -> None:
            await self._let_go(handle, attached(), kept=not fresh)

        handle = await settle_or_undo(self._attach(uuid, configuration, host, mount, place), undo)
        self._plugin.attached[handle] = attached()
        return handle

    async def detach(self, sr: Handle) -> None:
        """Raises SR_BACKEND_FAILURE_<n> while something has files open there; the SR is attached then as before.

        A volatile medium with disks stays mounted: they would be gone.
        """
        attached = self._plugin.attached.get(sr)
        if attached is None:
            return
        kept = self._medium.kind.volatile and await self._holds_disks(sr, attached)
        await settle(self._let_go(sr, attached, kept))
        self._plugin.attached.pop(sr, None)

    async def destroy(self, sr: Handle) -> None:
        attached = self._plugin.attached.get(sr)
        if attached is None:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {sr}")
        await self._plugin.files.sr.destroy(sr)
        await settle(release(attached.place, self._failures))
        await self._medium.erase(attached.configuration, attached.uuid)
        self._plugin.attached.pop(sr, None)

    async def lost(self, sr: Handle) -> ApiError | None:
        """SR_BACKEND_FAILURE_47. A volatile medium is none that could be had again: its disks are gone."""
        attached = self._plugin.attached.get(sr)
        if attached is None or self._medium.kind.volatile:
            return None
        found = mounted_at(attached.place)
        if found is None:
            return _unmounted(attached.place)
        mount = self._medium.mount(attached.configuration, attached.uuid)
        if found == attached.mounted and (not attached.recognised or self._medium.same(mount, found)):
            return None
        return backend_failure(
            Failure.SR_UNAVAILABLE,
            f"what is mounted on {attached.place}, {found.source}, is not {mount.source} any more",
        )

    async def stat(self, sr: Handle) -> SrStat:
        self._still_mounted(sr)
        return await self._plugin.files.sr.stat(sr)

    async def ls(self, sr: Handle) -> list[Volume]:
        self._still_mounted(sr)
        return await self._plugin.files.sr.ls(sr)

    async def set_name(self, sr: Handle, name: str, description: str) -> None:
        await self._plugin.files.sr.set_name(sr, name, description)

    async def _holds_disks(self, sr: Handle, attached: _Attached) -> bool:
        """What cannot be listed is not thrown away."""
        if mounted_at(attached.place) is None:
            return False
        try:
            return bool(await self._plugin.files.sr.ls(sr))
        except ApiError as error:
            log.error("SR %s stays mounted: %s", attached.uuid, error)
            return True

    async def _let_go(self, sr: Handle, attached: _Attached, kept: bool) -> None:
        """The folder first: images may be merged in it just now."""
        files = self._plugin.files.sr
        await files.detach(sr)
        if kept:
            return
        try:
            await release(attached.place, self._failures)
        except ApiError:
            with contextlib.suppress(ApiError):  # a medium that is gone too; the first failure says more
                await files.attach(attached.uuid, {"location": str(attached.place / attached.uuid)}, attached.host)
            raise

    async def _attach(self, uuid: str, configuration: dict[str, str], host: str, mount: Mount, place: Path) -> Handle:
        files, volatile = self._plugin.files.sr, self._medium.kind.volatile
        folder = {"location": str(place / uuid)}

        def same(found: Mounted) -> bool:
            return self._medium.same(mount, found)

        found = mounted_at(place)
        fresh = found is None or not same(found)
        try:
            if fresh:
                await self._medium.check(configuration, uuid)
                await ensure(mount, place, same, self._failures)
            if volatile and fresh:
                await files.create(uuid, folder, "", "")
            return await files.attach(uuid, folder, host)
        except BaseException:
            if fresh or not volatile:
                # also a mount that a crash left; where QEMU has files open, it stays
                with contextlib.suppress(ApiError):
                    await release(place, self._failures)
            raise

    async def _make(self, folder: Path, uuid: str, name: str, description: str) -> None:
        """By a plug-in of its own, as it would remember the folder."""
        files = self._plugin.make_files()
        try:
            await files.sr.create(uuid, {"location": str(folder)}, name, description)
        finally:
            await files.close()

    async def _look(self, root: Path, configuration: dict[str, str]) -> list[Probed]:
        """Every SR on the medium, and that there is room for another one."""
        files = self._plugin.make_files()
        try:
            found = [
                await files.sr.probe({"location": str(root / name)}) for name in await asyncio.to_thread(_srs, root)
            ]
        except OSError as error:
            raise backend_failure(self._failures.mount, f"cannot look into the medium: {error.strerror}") from error
        finally:
            await files.close()
        there = [
            msgspec.structs.replace(each, configuration=configuration) for srs in found for each in srs if each.uuid
        ]
        return [*there, Probed(configuration=configuration, uuid="")]

    def _still_mounted(self, sr: Handle) -> None:
        attached = self._plugin.attached.get(sr)
        if attached is not None and mounted_at(attached.place) is None:
            raise _unmounted(attached.place)


def _unmounted(place: Path) -> ApiError:
    return backend_failure(Failure.SR_UNAVAILABLE, f"nothing is mounted on {place} any more")


def _srs(root: Path) -> list[str]:
    """Folders that are called as an SR is."""
    return sorted(
        entry.name for entry in os.scandir(root) if is_uuid(entry.name) and entry.is_dir(follow_symlinks=False)
    )


def is_uuid(name: str) -> bool:
    try:
        return str(uuids.UUID(name)) == name
    except ValueError:
        return False
