"""The files QEMU writes by itself: what it said on its QMP socket, and what the guest said on its serial port."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path

from services.vm.backend import StopReason

KEEP = 64 * 1024
"""Bytes at the end of a file that stay readable when it is trimmed."""
TRIM_ABOVE = 4 * 2**20
"""Bytes on the disk from which a file is trimmed."""

_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE of fallocate(2)."""


def tail(path: Path, length: int = KEEP) -> bytes:
    """The last bytes; nothing when the file is not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - length))
            return file.read(length)
    except FileNotFoundError:
        return b""


def last_shutdown_reason(path: Path) -> str:
    """The `reason` of the last SHUTDOWN event in a QMP log; "" when there is none."""
    for line in reversed(tail(path).splitlines()):
        if b'"SHUTDOWN"' in line:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue  # its beginning was cut off
            if event.get("event") == "SHUTDOWN":
                return str(event["data"]["reason"])
    return ""


def how_it_ended(path: Path) -> StopReason:
    """Of a process that is gone: ENDED when it had been told to, by a signal or a command."""
    return StopReason.ENDED if last_shutdown_reason(path).startswith("host-") else StopReason.DIED


def trim(path: Path) -> None:
    """Gives the disk blocks of a file's beginning back while QEMU goes on writing to its end. Raises `OSError`.

    A guest decides how much is written, so it must not decide how much is kept.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(file)
        if found.st_blocks * 512 > TRIM_ABOVE:
            libc = ctypes.CDLL(None, use_errno=True)
            length = ctypes.c_longlong(found.st_size - KEEP)
            if libc.fallocate(file, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_longlong(0), length) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(file)
