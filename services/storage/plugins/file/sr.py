"""The SR methods of the type `file`."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.file import lease
from services.storage.plugins.file.folder import GUARD, MARKER, Folder, Marker, replace_file
from services.storage.plugins.interface import Handle, Probed, SrStat, Volume
from services.storage.plugins.skeleton import SrSkeleton
from services.storage.plugins.space import space_of
from shared.errors import ApiError

if TYPE_CHECKING:
    from services.storage.plugins.file.plugin import FilePlugin

log = logging.getLogger("storage.file")


class FileSr(SrSkeleton):
    def __init__(self, plugin: FilePlugin) -> None:
        self._plugin = plugin

    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        path = _location(configuration)
        sr = self._plugin.unattached(Folder(path, "", ""))
        marker = await sr.run(_read_marker, path)
        space = await sr.run(space_of, path)
        uuid = marker.uuid if marker else ""
        return [Probed(configuration=configuration, uuid=uuid, total_space=space.total, free_space=space.free)]

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        path = _location(configuration)
        sr = self._plugin.unattached(Folder(path, uuid, ""))
        try:
            await asyncio.get_running_loop().run_in_executor(None, _prepare, path, Marker(uuid, name, description))
        except OSError as error:
            raise backend_failure(
                Failure.SR_CREATE, f"cannot create an SR in {path}: {error.strerror}", error.strerror
            ) from error
        await sr.run(sr.folder.check_writable)
        return configuration

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle:
        sr = self._plugin.unattached(Folder(_location(configuration), uuid, host))
        await sr.run(sr.folder.check)
        await sr.run(sr.folder.check_writable)
        async with sr.locked():
            await sr.run(sr.folder.sweep)
        return await self._plugin.attach(sr.folder)

    async def detach(self, sr: Handle) -> None:
        await self._plugin.detach(sr)

    async def destroy(self, sr: Handle) -> None:
        attached = self._plugin.attached(sr)
        async with attached.locked():
            if await attached.run(attached.folder.ls):
                raise ApiError("SR_NOT_EMPTY")
            await attached.run(_remove, attached.folder)
        await self._plugin.detach(sr)

    async def stat(self, sr: Handle) -> SrStat:
        attached = self._plugin.attached(sr)
        return await attached.run(attached.folder.stat)

    async def ls(self, sr: Handle) -> list[Volume]:
        attached = self._plugin.attached(sr)
        return await attached.run(attached.folder.ls)


def _location(configuration: dict[str, str]) -> Path:
    """Raises SR_BACKEND_FAILURE_94, _1."""
    location = configuration.get("location", "")
    if not location:
        raise backend_failure(Failure.LOCATION_MISSING, "The request is missing the location parameter")
    if not location.startswith("/") or "\0" in location:
        raise backend_failure(Failure.INVALID_ARGUMENT, f"location must be an absolute path: {location!r}")
    return Path(location)


# What follows blocks and runs in worker threads.


def _read_marker(path: Path) -> Marker | None:
    """None: a folder without an SR. Raises SR_BACKEND_FAILURE_47."""
    if not path.is_dir():
        raise backend_failure(Failure.SR_UNAVAILABLE, f"the folder does not exist: {path}")
    try:
        return msgspec.json.decode((path / MARKER).read_bytes(), type=Marker)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise backend_failure(Failure.SR_UNAVAILABLE, f"cannot read {path / MARKER}: {error}") from error


def _prepare(path: Path, marker: Marker) -> None:
    path.mkdir(exist_ok=True)
    found = _read_marker(path)
    if found is not None and found.uuid != marker.uuid:
        raise backend_failure(Failure.SR_EXISTS, f"the folder holds another SR, {found.uuid}: {path}")
    if found is None:
        replace_file(path / MARKER, msgspec.json.encode(marker), path / f".new-{MARKER}")


def _remove(folder: Folder) -> None:
    images, sidecars = folder.names()
    for path in (*map(folder.image, images), *map(folder.sidecar, sidecars)):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder.path / lease.FOLDER)
    (folder.path / MARKER).unlink()
    (folder.path / GUARD).unlink()
    try:
        folder.path.rmdir()
    except OSError as error:
        log.info("SR %s: its folder stays: %s", folder.uuid, error)
