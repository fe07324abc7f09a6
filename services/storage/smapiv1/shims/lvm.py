"""VHDs in logical volumes that need not be active: read where LVM says that their extents lie on the physical ones."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import subprocess
from dataclasses import dataclass, field
from typing import Final

from services.storage.smapiv1.shims.program import Failed

_PLACE: Final = re.compile(r"(/.+)\((\d+)\)")


@dataclass(slots=True)
class Volume:
    """An `ImageFile` for reading. `parts`: (offset in the volume, device, offset there, length), in order, no gaps."""

    name: str
    parts: list[tuple[int, str, int, int]] = field(default_factory=list)
    fixed_size: bool = True

    def size(self) -> int:
        return sum(length for *_, length in self.parts)

    def pread(self, offset: int, length: int) -> bytes:
        found = []
        for begin, device, place, size in self.parts:
            first, after = max(offset, begin), min(offset + length, begin + size)
            if first < after:
                descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    # Not from the cache: what an active volume writes does not pass that of the device below it.
                    os.posix_fadvise(descriptor, place, size, os.POSIX_FADV_DONTNEED)
                    found.append(os.pread(descriptor, after - first, place + first - begin))
                finally:
                    os.close(descriptor)
        return b"".join(found)

    def pwrite(self, offset: int, data: bytes | memoryview) -> None:
        raise OSError(errno.EROFS, "volumes are only read here")

    def truncate(self, size: int) -> None:
        raise OSError(errno.EROFS, "volumes are only read here")

    def flush(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Nothing is kept open."""


def volumes(group: str) -> dict[str, Volume]:
    """Those of a volume group by name; those that are not linear are left out. Raises `Failed`."""
    extent = int(_asked("vgs", "vg_extent_size", group)[0][0])
    starts = {name: int(start) for name, start, of in _asked("pvs", "pv_name,pe_start,vg_name") if of == group}
    found: dict[str, Volume] = {}
    others: set[str] = set()
    for name, kind, begin, length, devices in _asked("lvs", "lv_name,segtype,seg_start,seg_size,devices", group):
        place = _PLACE.fullmatch(devices)
        if kind == "linear" and place is not None and place[1] in starts:
            part = (int(begin), place[1], starts[place[1]] + int(place[2]) * extent, int(length))
            found.setdefault(name, Volume(name)).parts.append(part)
        else:
            others.add(name)
    for volume in found.values():
        volume.parts.sort()
    return {name: volume for name, volume in found.items() if name not in others}


def matching(group: dict[str, Volume], pattern: str) -> list[str]:
    return sorted(name for name in group if fnmatch.fnmatchcase(name, pattern))


def _asked(program: str, fields: str, *names: str) -> list[list[str]]:
    command = [program, "--noheadings", "--nosuffix", "--units", "b", "--separator", "|", "-o", fields, *names]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Failed(error.errno or errno.EIO, f"{program} cannot be run: {error.strerror}") from None
    if ended.returncode:
        raise Failed(errno.EIO, f"{program}: {ended.stderr.strip()}")
    found = [line.strip().split("|") for line in ended.stdout.splitlines() if line.strip()]
    if not found and names:
        raise Failed(errno.ENOENT, f"{program}: nothing of {names[0]}")
    return found
