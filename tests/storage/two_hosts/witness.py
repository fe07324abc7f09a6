"""Who uses a disk at the same time: seen by the kernel, and by nothing that the storage service writes down.

`Witness` is for users that a test plays itself, `Openers` for programs such as QEMU.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_READ_WRITE = os.O_RDWR | os.O_WRONLY


class Violation(AssertionError):
    """Two used a disk at once, one of them to write."""


class Witness:
    """A file for each disk, outside the SR, that its users lock: flock(2) knows neither hosts nor leases."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder

    @contextmanager
    def using(self, disk: str, what: str, writable: bool) -> Iterator[None]:
        """`what`: who it is, for people. Raises `Violation` at once when somebody else is there."""
        file = os.open(self._folder / disk, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(file, (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                other = os.pread(file, 200, 0).decode().strip()
                raise Violation(f"{what} has the disk {disk}, and so has {other or 'a reader'}") from None
            if writable:
                os.pwrite(file, what.ljust(200).encode(), 0)
            yield
            if writable and os.pread(file, 200, 0).decode().strip() != what:
                raise Violation(f"{what} had the disk {disk}, and somebody else wrote to it")
        finally:
            os.close(file)


class Openers:
    """Looks again and again which processes have which files of a folder open for writing, in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = f"{folder}/"
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look_on)
        self.seen: set[str] = set()
        """Names of files that somebody had open for writing."""
        self.violations: set[str] = set()

    def __enter__(self) -> Openers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._ending.wait(0.002):
            self.look()

    def look(self) -> None:
        writers: dict[str, set[str]] = {}
        for process in os.listdir("/proc"):
            if process.isdecimal():
                for name in self._written_by(process):
                    writers.setdefault(name, set()).add(process)
        self.seen |= writers.keys()
        self.violations |= {
            f"{name} is open for writing in processes {', '.join(sorted(processes))}"
            for name, processes in writers.items()
            if len(processes) > 1
        }

    def _written_by(self, process: str) -> Iterator[str]:
        try:
            for file in os.listdir(f"/proc/{process}/fd"):
                target = os.readlink(f"/proc/{process}/fd/{file}")
                if target.startswith(self._folder) and target.endswith(".qcow2"):
                    with open(f"/proc/{process}/fdinfo/{file}") as info:
                        flags = next(line for line in info if line.startswith("flags:"))
                    if int(flags.split()[1], 8) & _READ_WRITE:
                        yield target.removeprefix(self._folder)
        except OSError:
            return  # it has ended, or closed it
