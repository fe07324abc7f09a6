"""What a host is in its pool, as its file `pool.conf` says: `master`, `slave:<coordinator's address>` or `broken`.

One file for each host (for each group of processes, where hosts share them), read by its services when they start. The
API process of the host writes it, and whoever makes the pool; a service whose part of the pool has changed ends with
`RESTART` and starts in the new one (`database-pool-ha` 3.2).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from shared.service import Service

log = logging.getLogger("host.role")

RESTART: Final = 123
"""Exit status of a service that wants to be started again at once, in another role; nothing has failed."""

LOOK_EVERY: Final = 0.2
"""Seconds between two looks whether the file is another one: a `stat`."""


class Part(StrEnum):
    """In the file's words. BROKEN: it cannot be known; somebody has to say it, or the database."""

    MASTER = "master"
    SLAVE = "slave"
    BROKEN = "broken"


class HostRole(msgspec.Struct, frozen=True):
    """`coordinator`: its address, for a member."""

    part: Part
    coordinator: str = ""

    @property
    def is_coordinator(self) -> bool:
        return self.part is Part.MASTER

    def __str__(self) -> str:
        """The file's text."""
        return f"{self.part}:{self.coordinator}" if self.part is Part.SLAVE else self.part.value


COORDINATOR: Final = HostRole(Part.MASTER)
BROKEN: Final = HostRole(Part.BROKEN)


def member_of(address: str) -> HostRole:
    return HostRole(Part.SLAVE, address)


def parse(text: str) -> HostRole | None:
    """None for a text that says nothing. An address may hold colons."""
    word, colon, address = text.strip().partition(":")
    if word == Part.SLAVE and colon:
        return member_of(address)
    return None if colon or word not in (Part.MASTER, Part.BROKEN) else HostRole(Part(word))


def read(path: Path) -> HostRole:
    """A file that is missing, or cannot be understood, is that of a broken host."""
    return _legible(path) or BROKEN


def _legible(path: Path) -> HostRole | None:
    try:
        found = parse(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        log.error("%s cannot be read: %s", path, error)
        return None
    if found is None:
        log.error("%s says nothing that a host could be", path)
    return found


def write(path: Path, role: HostRole) -> None:
    """Replaces the file, durably, or leaves it as it is. Raises `OSError`."""
    new = path.with_name(path.name + ".new")
    try:
        with new.open("w") as file:
            file.write(f"{role}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


async def changes(path: Path, known: HostRole) -> AsyncGenerator[HostRole]:
    """What the file says each time it says something else than before, for ever. `known`: what it said at first.

    A file that goes away, or becomes illegible, says nothing new: that counts at the next start.
    """
    seen: tuple[int, int, int] | None = None
    while True:
        now = _signature(path)
        if now != seen:
            seen = now
            found = _legible(path)
            if found is not None and found != known:
                known = found
                yield found
        await asyncio.sleep(LOOK_EVERY)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def follow(service: Service, path: Path) -> HostRole:
    """What the host is now. When it becomes coordinator, or is it no longer, the service ends to start anew."""
    started = read(path)

    async def watch() -> None:
        async for role in changes(path, started):
            if role.is_coordinator is not started.is_coordinator:
                log.warning("this host was %s and is %s now: starting anew", started, role)
                service.exit(RESTART)
                return

    service.spawn(watch(), "role of the host")
    return started
