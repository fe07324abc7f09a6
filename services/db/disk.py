"""The system calls that make data durable, in one place: tests put a disk there that loses, cuts and refuses."""

from __future__ import annotations

import os
from pathlib import Path


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
