"""The SR type `ext`: an ext4 file system on a block device of the host, which the plug-in makes and mounts.

The file system's UUID is the SR's, so that the device says by itself whose it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path
from typing import NoReturn

from services.storage.plugins.errors import Failure, backend_failure, plugin_failed
from services.storage.plugins.exclusive import until_free
from services.storage.plugins.interface import Probed
from services.storage.plugins.mounted import Kind, MediumSkeleton, is_uuid
from services.storage.plugins.mounted_point import Failures, Mount, Mounted, device_number, mounts, visit
from services.storage.plugins.program import run
from services.storage.plugins.space import Space, space_of
from shared.bus.contract import Record
from shared.errors import ApiError

log = logging.getLogger("storage.ext")

LABEL = "xapi-sr"
_NOTHING_FOUND = 2
"""blkid's status for a device without a signature."""

KIND = Kind(
    type="ext",
    name="Local EXT4",
    description="Disks as qcow2 images in an ext4 file system on a local block device",
    configuration={"device": "path of the block device (required); it is formatted"},
    failures=Failures(mount=Failure.MOUNT, unmount=Failure.UNMOUNT),
    features=("SR_PROBE",),
)


class Signature(Record, frozen=True):
    """What a device says that it holds: a file system, a partition table, or nothing. Empty fields: it does not say."""

    type: str = ""
    uuid: str = ""
    label: str = ""
    partitions: str = ""

    @property
    def blank(self) -> bool:
        return not (self.type or self.uuid or self.partitions)

    @property
    def words(self) -> str:
        return " ".join(filter(None, (self.type or self.partitions, self.label and f"label {self.label}", self.uuid)))


def parse_blkid(text: str) -> Signature:
    """`blkid -p -o export`: KEY=value lines."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return Signature(
        type=found.get("TYPE", ""),
        uuid=found.get("UUID", ""),
        label=found.get("LABEL", ""),
        partitions=found.get("PTTYPE", ""),
    )


def device_of(configuration: dict[str, str]) -> str:
    """Raises SR_BACKEND_FAILURE_90, _91. Not whether it is there."""
    device = configuration.get("device", "")
    if not device:
        raise backend_failure(Failure.DEVICE_MISSING, "The request is missing the device parameter")
    if "," in device:
        raise backend_failure(Failure.DEVICE_INVALID, f"an ext SR has one device, not several: {device}")
    if not device.startswith("/") or "\0" in device:
        raise backend_failure(Failure.DEVICE_INVALID, f"device must be an absolute path: {device!r}")
    return device


class ExtMedium(MediumSkeleton):
    """`visited`: an empty folder, for looks at a device."""

    def __init__(self, visited: Path) -> None:
        self._visited = visited

    @property
    def kind(self) -> Kind:
        return KIND

    def mount(self, configuration: dict[str, str], uuid: str) -> Mount:
        options = ("nosuid", "nodev", "noexec", "errors=remount-ro")
        return Mount(kind="ext4", source=device_of(configuration), options=options)

    def same(self, mount: Mount, found: Mounted) -> bool:
        return found.device == device_number(mount.source)

    async def check(self, configuration: dict[str, str], uuid: str) -> None:
        """Raises SR_BACKEND_FAILURE_47 for a device that is gone, or holds something else."""
        device = device_of(configuration)
        if not await asyncio.to_thread(_is_block_device, device):
            raise backend_failure(Failure.SR_UNAVAILABLE, f"the device is not there: {device}")
        found = await signature(device)
        if (found.type, found.uuid) != ("ext4", uuid):
            held = found.words or "nothing"
            raise backend_failure(Failure.SR_UNAVAILABLE, f"the device {device} does not hold this SR, but {held}")

    async def prepare(self, configuration: dict[str, str], uuid: str) -> None:
        """Formats the device, unless that was done before. Raises SR_DEVICE_IN_USE when it holds anything else."""
        device = device_of(configuration)
        await _need_device(device)
        found = await signature(device)
        if (found.type, found.uuid) == ("ext4", uuid):
            return
        await _need_unused(device)
        if not found.blank and not await self._abandoned(device, found):
            refuse(device, found)
        output = await run(["mkfs.ext4", "-q", "-F", "-m", "0", "-L", LABEL, "-U", uuid, "--", device])
        if output.status:
            raise backend_failure(Failure.FILESYSTEM_CREATE, f"cannot format {device}", output.words)

    async def erase(self, configuration: dict[str, str], uuid: str) -> None:
        """The device is free for everybody again."""
        device = device_of(configuration)
        if (await signature(device)).uuid != uuid:
            return
        command = ["wipefs", "--all", "--quiet", "--", device]
        output = await run(command)
        if output.status and await until_free(device):  # it may have been busy with what has ended by now
            output = await run(command)
        if output.status:
            raise backend_failure(Failure.SR_DELETE, f"cannot erase the file system of {device}", output.words)

    async def probe(self, configuration: dict[str, str]) -> list[Probed] | None:
        device = device_of(configuration)
        await _need_device(device)
        found = await signature(device)
        if found.blank:
            return [Probed(configuration=configuration, uuid="", total_space=await asyncio.to_thread(_size, device))]
        if found.type == "ext4" and found.label == LABEL and is_uuid(found.uuid):
            return [await self._existing(configuration, device, found.uuid)]
        return []

    async def _existing(self, configuration: dict[str, str], device: str, uuid: str) -> Probed:
        """A file system that cannot be mounted is there as well: it has the size of its device."""
        try:
            space = await self._space(device)
        except (ApiError, OSError) as error:
            log.warning("%s holds SR %s, whose file system cannot be looked at: %s", device, uuid, error)
            size = await asyncio.to_thread(_size, device)
            return Probed(configuration=configuration, uuid=uuid, total_space=size, health="unavailable")
        return Probed(configuration=configuration, uuid=uuid, total_space=space.total, free_space=space.free)

    async def _space(self, device: str) -> Space:
        """Raises SR_BACKEND_FAILURE_<n>, OSError."""
        number = device_number(device)
        mounted = next((found for found in mounts() if found.device == number), None)
        if mounted is not None:
            return await asyncio.to_thread(space_of, mounted.place)
        looked_at = Mount(kind="ext4", source=device, options=("ro", "noload"))  # its journal stays as it is
        async with visit(looked_at, self._visited, KIND.failures) as root:
            return await asyncio.to_thread(space_of, root)

    async def _abandoned(self, device: str, found: Signature) -> bool:
        """Whether an SR was destroyed here, and a crash left its empty file system."""
        if (found.type, found.label) != ("ext4", LABEL):
            return False
        mount = Mount(kind="ext4", source=device, options=("ro",))
        async with visit(mount, self._visited, KIND.failures) as root:
            return set(await asyncio.to_thread(os.listdir, root)) <= {"lost+found"}


async def signature(device: str) -> Signature:
    """Read from the device itself, past every cache."""
    output = await run(["blkid", "-p", "-o", "export", "--", device])
    if output.status == _NOTHING_FOUND:
        return Signature()
    if output.status:
        raise plugin_failed(f"cannot tell what {device} holds", output.words)
    return parse_blkid(output.stdout)


async def need_free(device: str) -> None:
    """That nothing is on it and nobody has it. Raises SR_BACKEND_FAILURE_19, _91, SR_DEVICE_IN_USE."""
    await _need_device(device)
    await _need_unused(device)
    found = await signature(device)
    if not found.blank:
        refuse(device, found)


def refuse(device: str, found: Signature) -> NoReturn:
    log.error("%s holds %s; `wipefs --all` makes it empty", device, found.words)
    raise ApiError("SR_DEVICE_IN_USE")


async def _need_device(device: str) -> None:
    """Raises SR_BACKEND_FAILURE_19, _91."""
    if not await asyncio.to_thread(os.path.exists, device):
        raise backend_failure(Failure.NO_SUCH_DEVICE, f"No such device: {device}")
    if not await asyncio.to_thread(_is_block_device, device):
        raise backend_failure(Failure.DEVICE_INVALID, f"not a block device: {device}")


async def _need_unused(device: str) -> None:
    """Raises SR_DEVICE_IN_USE, SR_BACKEND_FAILURE_91."""
    if not await until_free(device):
        raise ApiError("SR_DEVICE_IN_USE")


# What follows blocks and runs in worker threads.


def _is_block_device(device: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(device).st_mode)
    except OSError:
        return False


def _size(device: str) -> int:
    """Bytes. Raises SR_BACKEND_FAILURE_91."""
    try:
        file = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise backend_failure(Failure.DEVICE_INVALID, f"cannot open {device}", error.strerror) from error
    try:
        return os.lseek(file, 0, os.SEEK_END)
    finally:
        os.close(file)
