"""Files that VHD images are in: regular files, and block devices (logical volumes), whose size is given.

An image begins to be read at its footer, and that is found here too.
"""

from __future__ import annotations

import os
import stat
from typing import Protocol

from services.storage.formats.interface import FormatError, Truncated
from services.storage.formats.vhd.footer import FOOTER_SIZE, DiskType, Footer, looks_like_footer, parse_footer


class ImageFile(Protocol):
    """A file by position, from any thread. Errors are `OSError`."""

    @property
    def fixed_size(self) -> bool:
        """A block device: it does not grow, and what is not written yet has any content."""
        ...

    def size(self) -> int: ...

    def pread(self, offset: int, length: int) -> bytes:
        """Fewer bytes only at the end."""
        ...

    def pwrite(self, offset: int, data: bytes | memoryview) -> None:
        """All of it; a regular file grows, with zeros in between."""
        ...

    def truncate(self, size: int) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class OsFile:
    """An `ImageFile` of the operating system."""

    def __init__(self, path: str, writable: bool = False, create: bool = False) -> None:
        """`create`: makes a regular file that must not be there yet, or takes the block device that is."""
        flags = os.O_CLOEXEC | (os.O_RDWR if writable or create else os.O_RDONLY)
        if create and not _is_block(path):
            flags |= os.O_CREAT | os.O_EXCL
        self._fd = os.open(path, flags, 0o644)
        self._block = stat.S_ISBLK(os.fstat(self._fd).st_mode)

    @property
    def fixed_size(self) -> bool:
        return self._block

    def size(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_END) if self._block else os.fstat(self._fd).st_size

    def pread(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        done = len(data)
        while done < length and (data := os.pread(self._fd, length - done, offset + done)):
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def pwrite(self, offset: int, data: bytes | memoryview) -> None:
        done = os.pwrite(self._fd, data, offset)
        rest = memoryview(data)
        while done < len(data):
            done += os.pwrite(self._fd, rest[done:], offset + done)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def flush(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> OsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_block(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def read_exactly(file: ImageFile, offset: int, length: int, what: str) -> bytes:
    """Raises `Truncated`."""
    data = file.pread(offset, length)
    if len(data) != length:
        raise Truncated(f"VHD {what} at {offset}: {length} bytes, the file has {len(data)} there")
    return data


def find_footer(file: ImageFile) -> Footer:
    """The copy at 0 counts, unless the file ends like a fixed disk (whose content may look like a VHD itself).

    Raises `FormatError`, `Truncated`.
    """
    size = file.size()
    if size < FOOTER_SIZE:
        raise Truncated(f"a VHD in a file of {size} bytes")
    head, tail = file.pread(0, FOOTER_SIZE), file.pread(size - FOOTER_SIZE, FOOTER_SIZE)
    try:
        last = parse_footer(tail, f"at {size - FOOTER_SIZE}")
    except FormatError:
        if not looks_like_footer(head):
            raise
        return _moving(parse_footer(head, "at 0"))
    if last.type is DiskType.FIXED:
        return last
    try:
        return _moving(parse_footer(head, "at 0"))
    except FormatError:
        return last


def _moving(footer: Footer) -> Footer:
    if footer.type is DiskType.FIXED:
        raise FormatError("VHD footer at 0: says a fixed disk, which ends with its footer")
    return footer
