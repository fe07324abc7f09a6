"""The processes in a mount namespace: what drivers have left running there ends with it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def end(namespace: Path) -> int:
    """Kills them; returns how many there were. `namespace`: the file that keeps it."""
    count = 0
    kept = namespace.stat()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):  # it has ended meanwhile
                count += _end(int(entry.name), kept)
    return count


def _end(pid: int, kept: os.stat_result) -> bool:
    """Held by a descriptor first, so that the number cannot change hands between look and signal."""
    held = os.pidfd_open(pid)
    try:
        mine = os.stat(f"/proc/{pid}/ns/mnt")
        if (mine.st_dev, mine.st_ino) != (kept.st_dev, kept.st_ino):
            return False
        signal.pidfd_send_signal(held, signal.SIGKILL)
        return True
    finally:
        os.close(held)
