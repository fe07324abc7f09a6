"""Programs that a killed service has left: the next one begins when they have ended.

Each is tied to the service (`setpriv --pdeathsig`), but only from when setpriv has run: one that was started just
before the service was killed goes on, and could erase or mount a device that the next service is using by then. All of
them inherit one open file, which is locked as long as any of them has it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from pathlib import Path

log = logging.getLogger("storage.lifetime")

PATIENCE = 10.0
"""Seconds. A program of the former service that takes longer hangs in the kernel, as on a file server that is gone."""
_PAUSE = 0.01

_inherited: list[int] = []


def inherited() -> tuple[int, ...]:
    """File descriptors that every program gets that must not outlive the service."""
    return tuple(_inherited)


async def begin(file: Path, patience: float = PATIENCE) -> None:
    """Once in a process, before it starts the first program."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + patience
    while not _lock(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > end:
            left = await asyncio.to_thread(_left, file)
            log.error("programs of an earlier life of this service do not end: %s", ", ".join(left) or "not seen here")
            break
        await asyncio.sleep(_PAUSE)
    _lock(descriptor, fcntl.LOCK_SH)
    _inherited.append(descriptor)


def end() -> None:
    """The service has stopped in good order: the next one may begin, if need be in this process. Programs that have
    not ended are waited for still.
    """
    while _inherited:
        os.close(_inherited.pop())


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _left(file: Path) -> list[str]:
    """Blocks: runs in a worker thread."""
    name, found = str(file.resolve()), []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or process.name == str(os.getpid()):
            continue
        try:
            if any(os.readlink(each) == name for each in (process / "fd").iterdir()):
                found.append(f"{(process / 'comm').read_text(errors='replace').strip()} ({process.name})")
        except OSError:  # it has ended meanwhile
            continue
    return found
