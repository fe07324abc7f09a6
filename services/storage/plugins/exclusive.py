"""Block devices that the kernel gives to one at a time (O_EXCL): whether somebody has one, who, and waiting for it.

A mounted file system has its device for itself until the last mount of it is gone, in whatever mount namespace; so has
a program that formats or erases it. Both can last a moment longer than what this service sees: a namespace is torn
down after the death of its last process, a killed program ends when the kernel gets to it. So whoever is refused waits
a little, unless it is plain that the device is in use for good.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.mounted_point import device_number, mounts, parse_mountinfo

log = logging.getLogger("storage.exclusive")

PATIENCE = 5.0
"""Seconds for somebody who is about to end."""
_PAUSE = 0.02


async def until_free(device: str) -> bool:
    """False: somebody still has it for himself; the log says who. Raises SR_BACKEND_FAILURE_91."""
    if not await asyncio.to_thread(_taken, device):
        return True
    begun = time.monotonic()
    unknown = "by another device or the kernel"
    waited_for = await asyncio.to_thread(_holders, device) or unknown
    while await asyncio.to_thread(_taken, device):
        if time.monotonic() >= begun + PATIENCE or _mounted(device):
            log.error("%s is in use: %s", device, await asyncio.to_thread(_holders, device) or unknown)
            return False
        await asyncio.sleep(_PAUSE)
    log.info("waited %.2f s for %s, which was in use: %s", time.monotonic() - begun, device, waited_for)
    return True


def _mounted(device: str) -> bool:
    """Where everybody sees it: that is no remainder."""
    number = device_number(device)
    return any(found.device == number for found in mounts())


# What follows blocks and runs in worker threads.


def _taken(device: str) -> bool:
    """The kernel lets nobody else have a device that is mounted, swapped to, or part of another: nor its partitions."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise backend_failure(Failure.DEVICE_INVALID, f"cannot open {device}", error.strerror) from error
    return False


def _holders(device: str) -> str:
    """Every process that has it open, or has it mounted in a namespace of its own; as far as this one may look."""
    number, found, namespaces = device_number(device), [], set[str]()
    for process in _processes():
        try:
            if any(device_number(str(file)) == number for file in (process / "fd").iterdir()):
                found.append(f"open in {_name(process)}")
            namespace = os.readlink(process / "ns" / "mnt")
            if namespace in namespaces:
                continue
            namespaces.add(namespace)
            places = parse_mountinfo((process / "mountinfo").read_text(errors="surrogateescape"))
        except OSError:  # it has ended meanwhile
            continue
        found += [f"mounted on {each.place} as {_name(process)} sees it" for each in places if each.device == number]
    return ", ".join(found)


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _name(process: Path) -> str:
    return f"{(process / 'comm').read_text(errors='replace').strip()} (process {process.name})"
