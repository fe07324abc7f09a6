"""The system calls that make data durable, in one place: tests put a disk there that loses, cuts and refuses."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

PIECE: Final = 1024 * 1024
"""Bytes of a file that nobody needs any more, given back at once."""
PAUSE: Final = 0.002
"""Seconds until the next."""


class Disk:
    """The real one. Descriptors are the system's; every method raises `OSError`."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def size(self, descriptor: int) -> int:
        """Bytes of a file or of a block device."""
        return os.lseek(descriptor, 0, os.SEEK_END)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Fewer bytes than asked for only where the file ends."""
        parts = []
        while length:
            part = os.pread(descriptor, length, offset)
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """How many bytes were written: the system may take fewer than it was given."""
        return os.pwrite(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """The file's bytes and length are on stable storage."""
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        """A file that is gone already is not an error."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """New, renamed and removed names in the folder are on stable storage."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_all(self, descriptor: int, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            count = self.write(descriptor, view, offset)
            view, offset = view[count:], offset + count

    # ---- large files that nobody needs any more

    def remove(self, paths: Iterable[Path]) -> None:
        """Durably. Their room is given back piece by piece, which takes 2 to 3 ms for each MiB.

        Where the disk is told what is free (the mount option `discard`), every fdatasync meanwhile waits for all that
        is given back at once: 17 to 25 ms for a file of 77 MB.
        """
        with ExitStack() as former:
            folders = set()
            for path in paths:
                self._let_go_after(path, former)
                self.unlink(path)
                folders.add(path.parent)
            for folder in folders:
                self.sync_folder(folder)

    def replace(self, new: Path, path: Path) -> None:
        """Renames durably. The room of the file that had the name is given back like that of removed ones."""
        with ExitStack() as former:
            self._let_go_after(path, former)
            self.rename(new, path)
            self.sync_folder(path.parent)

    def _let_go_after(self, path: Path, former: ExitStack) -> None:
        try:
            descriptor = self.open(path, os.O_RDWR)
        except FileNotFoundError:
            return
        if self.size(descriptor) > PIECE:
            former.callback(self._let_go, descriptor)
        else:
            self.close(descriptor)

    def _let_go(self, descriptor: int) -> None:
        try:
            with suppress(OSError):  # closing gives all back
                if _is_nobodys(descriptor):
                    for left in range(self.size(descriptor) - PIECE, 0, -PIECE):
                        self.truncate(descriptor, left)
                        time.sleep(PAUSE)
        finally:
            self.close(descriptor)


def _is_nobodys(descriptor: int) -> bool:
    """It has no name any more, and nobody else has it open (only then there is such a lease). Raises `OSError`."""
    if os.fstat(descriptor).st_nlink:
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True
