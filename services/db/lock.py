"""A state folder belongs to one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from shared.config import ConfigError

NAME: Final = "lock"


class StateInUse(ConfigError):
    """Another process has the folder; the text says which."""


class StateLock:
    """A lock of the system's on one file of the folder. It ends with the process, however that ends.

    It is a record lock (fcntl), which forked children do not inherit: a child that still writes a checkpoint when its
    process is killed does not keep the next one from starting.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._descriptor = -1

    def take(self) -> None:
        """Raises `StateInUse`, `OSError`."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise StateInUse(f"{self._path.parent} is in use by process {holder or 'unknown'}") from error
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
