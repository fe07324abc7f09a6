"""Disks that refuse: errors at chosen or random operations, short writes, and one that dies in the middle."""

from __future__ import annotations

import errno
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from services.db.disk import Disk
from tests.support.lossy_disk import SECTOR, LossyDisk

Step = Literal["open", "write", "sync", "truncate", "rename", "unlink", "sync_folder"]
ANY: Final = "any"
STEPS: Final[tuple[Step, ...]] = ("open", "write", "sync", "truncate", "rename", "unlink", "sync_folder")

Result = TypeVar("Result")


@dataclass(slots=True)
class Fault:
    """From now on (after `skip` more of them), `times` operations of that kind (or `ANY`) fail.

    `room`: a write takes so many bytes before it does. With `error` 0 a write is short (half, or `room`), no more.
    """

    step: Step | Literal["any"]
    error: int = errno.EIO
    skip: int = 0
    times: float = math.inf
    room: int = 0


class FaultyDisk(Disk):
    """Passes everything to `inner`, but for what `faults` say. `count`: operations so far.

    A sync that fails loses what it was for, as on Linux: pages count as clean, the next sync succeeds without them.
    """

    def __init__(self, inner: Disk | None = None) -> None:
        self.inner = inner or Disk()
        self.faults: list[Fault] = []
        self.count = 0
        self.failures = 0

    def _due(self, step: Step) -> Fault | None:
        self.count += 1
        for fault in self.faults:
            if fault.step not in (step, ANY) or fault.times <= 0:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            self.failures += 1
            return fault
        return None

    def _fail(self, fault: Fault) -> OSError:
        return OSError(fault.error, os.strerror(fault.error))

    def _pass(self, step: Step, work: Callable[[], Result]) -> Result:
        if fault := self._due(step):
            raise self._fail(fault)
        return work()

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        return self._pass("open", lambda: self.inner.open(path, flags, mode))

    def close(self, descriptor: int) -> None:
        self.inner.close(descriptor)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        fault = self._due("write")
        if fault is None:
            return self.inner.write(descriptor, data, offset)
        room = fault.room or (0 if fault.error else max(1, len(data) // 2))
        count = self.inner.write(descriptor, bytes(data[:room]), offset) if room else 0
        if fault.error:
            raise self._fail(fault)
        return count

    def sync(self, descriptor: int) -> None:
        if fault := self._due("sync"):
            if isinstance(self.inner, LossyDisk):
                self.inner.forget(descriptor)
            raise self._fail(fault)
        self.inner.sync(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        self._pass("truncate", lambda: self.inner.truncate(descriptor, length))

    def rename(self, old: Path, new: Path) -> None:
        self._pass("rename", lambda: self.inner.rename(old, new))

    def unlink(self, path: Path) -> None:
        self._pass("unlink", lambda: self.inner.unlink(path))

    def sync_folder(self, folder: Path) -> None:
        self._pass("sync_folder", lambda: self.inner.sync_folder(folder))


class RandomFaults(FaultyDisk):
    """Now and then an operation fails: once, some times in a row, or all for a while (a disk that is full, or away).

    `calm`: operations before the first; `mean`: operations between two of them, on average.
    """

    def __init__(self, rng: random.Random, inner: Disk | None = None, *, calm: int = 40, mean: int = 60) -> None:
        super().__init__(inner)
        self._rng = rng
        self._calm = calm
        self._mean = mean

    def _due(self, step: Step) -> Fault | None:
        if self._calm:
            self._calm -= 1
        elif not any(fault.times > 0 for fault in self.faults) and self._rng.random() < 1 / self._mean:
            self.faults = self._episode(step)
        return super()._due(step)

    def _episode(self, step: Step) -> list[Fault]:
        rng = self._rng
        match rng.choice(("this", "short", "full", "away", "this and that")):
            case "this":
                return [Fault(step, errno.EIO, times=rng.choice((1, 1, 1, 3)))]
            case "short":
                return [Fault("write", 0, times=rng.randint(1, 4))]
            case "full":
                return [Fault("write", errno.ENOSPC, times=rng.randint(1, 15), room=rng.choice((0, 1, 100)))]
            case "away":
                times = rng.randint(1, 6)
                return [Fault(each, errno.EIO, times=times) for each in STEPS]
        return [Fault(each, errno.EIO, times=1) for each in rng.sample(STEPS, 3)]


class Crash(BaseException):
    """The process is killed here: no handler of errors may see it."""


class CrashingDisk(Disk):
    """Dies at the `at`-th operation (from 0) that changes something; half of a write's sectors are done by then.

    `count`: operations so far. After the crash every operation dies too. `release` closes what is still open.
    """

    def __init__(self, inner: Disk, at: float = math.inf) -> None:
        self.inner = inner
        self.at = at
        self.count = 0
        self._open: set[int] = set()

    @property
    def dead(self) -> bool:
        return self.count > self.at

    def _step(self) -> None:
        self.count += 1
        if self.dead:
            raise Crash(f"operation {self.count - 1}")

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        self._step()
        descriptor = self.inner.open(path, flags, mode)
        self._open.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        self.inner.close(descriptor)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        try:
            self._step()
        except Crash:
            if self.count - 1 == self.at:
                # A kill does not cut a sector.
                room = max(0, (offset + len(data) // 2) // SECTOR * SECTOR - offset)
                self.inner.write(descriptor, bytes(data[:room]), offset)
            raise
        return self.inner.write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        self._step()
        self.inner.sync(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        self._step()
        self.inner.truncate(descriptor, length)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        self.inner.rename(old, new)

    def unlink(self, path: Path) -> None:
        self._step()
        self.inner.unlink(path)

    def sync_folder(self, folder: Path) -> None:
        self._step()
        self.inner.sync_folder(folder)

    def release(self) -> None:
        for descriptor in list(self._open):
            self.close(descriptor)
