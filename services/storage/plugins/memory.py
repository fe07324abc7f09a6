"""The SR type `memory`: a tmpfs of the host, for pools that one tries things in.

Its disks are gone when the machine ends: attaching the SR afterwards makes it anew, empty, with the same uuid.
Detaching it keeps them, as long as there are any.
"""

from __future__ import annotations

import re
from pathlib import Path

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.interface import Probed
from services.storage.plugins.mounted import Kind, MediumSkeleton
from services.storage.plugins.mounted_point import Failures, Mount, mounts

DEFAULT_SIZE = 1 << 30
_SIZE = re.compile(r"([1-9][0-9]{0,18})([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SMALLEST = 1 << 20

KIND = Kind(
    type="memory",
    name="Memory",
    description="Disks as qcow2 images in memory, gone when the host ends",
    configuration={"size": "bytes, also as 512MiB or 2GiB (default: 1 GiB)"},
    failures=Failures(mount=Failure.MOUNT, unmount=Failure.UNMOUNT),
    features=("SR_PROBE",),
    volatile=True,
)


def size_of(configuration: dict[str, str]) -> int:
    """Bytes. Raises SR_BACKEND_FAILURE_1."""
    text = configuration.get("size", "") or str(DEFAULT_SIZE)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise backend_failure(Failure.INVALID_ARGUMENT, f"size is not a number of bytes: {text!r}")
    size = int(match[1]) << _UNITS[match[2].lower()]
    if not _SMALLEST <= size < 1 << 60:
        raise backend_failure(Failure.INVALID_ARGUMENT, f"size makes no sense: {text}")
    return size


class MemoryMedium(MediumSkeleton):
    """`root`: folder of the mount points, to tell which SRs there are."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def kind(self) -> Kind:
        return KIND

    def mount(self, configuration: dict[str, str], uuid: str) -> Mount:
        """The source is only a name; it says whose it is."""
        options = (f"size={size_of(configuration)}", "mode=0700", "nosuid", "nodev", "noexec")
        return Mount(kind="tmpfs", source=f"xapi-sr-{uuid}", options=options)

    async def probe(self, configuration: dict[str, str]) -> list[Probed] | None:
        size = size_of(configuration)
        here = {
            Path(found.place).name
            for found in mounts()
            if found.kind == "tmpfs" and Path(found.place).is_relative_to(self._root)
        }
        return [Probed(configuration=configuration, uuid=uuid, total_space=size) for uuid in (*sorted(here), "")]
