"""Locks between the programs of a host, by name: what drivers of SMAPIv1 import as the client of xapi's lock daemon.

    with Fairlock("devicemapper"):

Here a lock is one of the kernel's (flock) on a file, which goes with its holder. The kernel does not promise that it
is first come, first served.
"""

from __future__ import annotations

import fcntl
import os
from types import TracebackType
from typing import ClassVar

FOLDER = "/run/sm/fairlock"


class FairlockDeadlock(Exception):
    """The process has the lock already."""


class FairlockServiceTimeout(Exception):
    """There is no service that could be late; drivers know the name."""


class Fairlock:
    """One object for each name in a process."""

    _known: ClassVar[dict[str, Fairlock]] = {}
    name: str
    _descriptor: int

    def __new__(cls, name: str) -> Fairlock:
        if name not in cls._known:
            made = super().__new__(cls)
            made.name, made._descriptor = name, -1
            cls._known[name] = made
        return cls._known[name]

    def __enter__(self) -> Fairlock:
        if self._descriptor >= 0:
            raise FairlockDeadlock(f"this process has the lock {self.name!r} already")
        os.makedirs(FOLDER, exist_ok=True)
        descriptor = os.open(os.path.join(FOLDER, self.name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
