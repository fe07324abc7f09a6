"""Mounts of this machine, by system calls: quick enough for the event loop.

Needs root.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path
from typing import Final

from shared.driver_view import mounted

_MS_BIND: Final = 4096
_MS_PRIVATE: Final = 1 << 18
_MS_SHARED: Final = 1 << 20
_MNT_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


def memory(folder: Path) -> None:
    """A file system in memory there, of which other namespaces hear nothing. Raises OSError, as all here."""
    _mount("tmpfs", folder, "tmpfs", 0, "mode=0755")
    _mount("", folder, "", _MS_PRIVATE, "")


def share(folder: Path) -> None:
    """Makes the folder a mount; what is mounted below it is seen in all namespaces that have it."""
    _mount(str(folder), folder, "", _MS_BIND, "")
    _mount("", folder, "", _MS_SHARED, "")


def remove_tree(folder: Path) -> None:
    """Unmounts all that is mounted there and below, also what is in use, and removes the folder."""
    inside = f"{folder}/"
    for point in reversed([point for point, _ in mounted() if point == str(folder) or point.startswith(inside)]):
        _unmount(point)
    shutil.rmtree(folder, ignore_errors=True)


def _mount(source: str, target: Path, kind: str, flags: int, data: str) -> None:
    arguments = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    if _libc.mount(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def _unmount(point: str) -> None:
    if _libc.umount2(os.fsencode(point), _MNT_DETACH) != 0 and Path(point).is_mount():
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), point)
