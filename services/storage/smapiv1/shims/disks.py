"""What a tapdisk serves: a VHD with all that it stands on, or a raw file or device; by bytes, from any thread."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import threading
from collections.abc import Iterator
from typing import Final, Protocol

from services.storage.formats.cbt import BLOCK_SIZE as CBT_BLOCK
from services.storage.formats.cbt import parse_log
from services.storage.formats.interface import PIECE
from services.storage.formats.vhd.chain import Chain
from services.storage.formats.vhd.files import OsFile
from services.storage.formats.vhd.footer import SECTOR
from services.storage.formats.vhd.image import Image
from services.storage.formats.zeros import zeros
from services.storage.smapiv1.shims.images import encrypted, key_of

KINDS: Final = ("aio", "vhd")
_PUNCH_HOLE_KEEP_SIZE: Final = 3
_CBT_HEADER: Final = 48
_libc = ctypes.CDLL(None, use_errno=True)


class Disk(Protocol):
    """Ranges are within the disk. Errors are `OSError` and `FormatError`."""

    @property
    def size(self) -> int: ...

    @property
    def trims(self) -> bool:
        """Whether room can be given back."""
        ...

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def trim(self, offset: int, length: int) -> None: ...

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """Lengths of neighbouring parts, and whether there may be data; without gaps."""
        ...

    def flush(self) -> None: ...

    def close(self) -> None:
        """What was written is durable, and everybody sees it."""
        ...


def open_disk(kind: str, path: str, writable: bool, log: str = "") -> Disk:
    """`kind`: of `KINDS`. `log`: a CBT log that is told of writes. Raises `FormatError`, `OSError`, `Failed`."""
    disk: Disk = VhdDisk(path, writable) if kind == "vhd" else RawDisk(path, writable)
    if not log:
        return disk
    try:
        return TrackedDisk(disk, log)
    except BaseException:
        disk.close()
        raise


def _fresh(path: str, writable: bool) -> OsFile:
    """Of a device, nothing is read from the cache: another host may have written to it since."""
    if stat.S_ISBLK(os.stat(path).st_mode):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return OsFile(path, writable)


class VhdDisk:
    trims = False

    def __init__(self, path: str, writable: bool) -> None:
        self._chain = Chain.open(path, writable, _fresh)
        self._writable = writable
        for node, where in zip(self._chain.nodes, self._chain.paths, strict=True):
            if isinstance(node, Image) and key_of(node) is not None:
                self._chain.close()
                raise encrypted(where)

    @property
    def size(self) -> int:
        return self._chain.size

    def read(self, offset: int, length: int) -> bytes:
        begin, end = _sectors(offset, length)
        data = self._chain.read(begin, end - begin)
        return data if len(data) == length else data[offset - begin : offset - begin + length]

    def write(self, offset: int, data: memoryview) -> None:
        begin, end = _sectors(offset, len(data))
        if (begin, end) == (offset, offset + len(data)):
            self._chain.write(offset, data)
            return
        with self._chain.leaf.lock:  # nobody may write to these sectors between the read and the write
            whole = bytearray(self._chain.read(begin, end - begin))
            whole[offset - begin : offset - begin + len(data)] = data
            self._chain.write(begin, memoryview(whole))

    def zero(self, offset: int, length: int) -> None:
        """Where no image has data nothing is written."""
        begin, end = -(-offset // SECTOR) * SECTOR, (offset + length) // SECTOR * SECTOR
        if begin >= end:
            self.write(offset, memoryview(zeros(length)))
            return
        self._edge(offset, begin)
        for part, size, present in list(self._chain.extents(begin, end - begin)):
            if present:
                self._chain.zero(part, size)
        self._edge(end, offset + length)

    def _edge(self, begin: int, end: int) -> None:
        if begin < end:
            self.write(begin, memoryview(zeros(end - begin)))

    def trim(self, offset: int, length: int) -> None:
        """A block that is there stays."""

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        begin, end = _sectors(offset, length)
        for part, size, present in self._chain.extents(begin, end - begin):
            yield min(part + size, offset + length) - max(part, offset), present

    def flush(self) -> None:
        self._chain.flush()

    def close(self) -> None:
        try:
            if self._writable:
                self._chain.flush()
        finally:
            self._chain.close()


def _sectors(offset: int, length: int) -> tuple[int, int]:
    return offset // SECTOR * SECTOR, -(-(offset + length) // SECTOR) * SECTOR


class RawDisk:
    trims = True

    def __init__(self, path: str, writable: bool) -> None:
        self._file = _fresh(path, writable)
        self._descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        self._writable = writable
        self.size = self._file.size()

    def read(self, offset: int, length: int) -> bytes:
        data = self._file.pread(offset, length)
        if len(data) < length:
            raise OSError(errno.EIO, f"the image ends at {self._file.size()}")
        return data

    def write(self, offset: int, data: memoryview) -> None:
        self._file.pwrite(offset, data)

    def zero(self, offset: int, length: int) -> None:
        if self._file.fixed_size or not self._punch(offset, length):
            for at in range(0, length, PIECE):
                self._file.pwrite(offset + at, zeros(min(PIECE, length - at)))

    def trim(self, offset: int, length: int) -> None:
        if not self._file.fixed_size:
            self._punch(offset, length)

    def _punch(self, offset: int, length: int) -> bool:
        """False: the file system has no holes."""
        where, size = ctypes.c_longlong(offset), ctypes.c_longlong(length)
        if _libc.fallocate(self._descriptor, _PUNCH_HOLE_KEEP_SIZE, where, size) == 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise OSError(number, os.strerror(number))

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        end = offset + length
        if self._file.fixed_size:
            yield length, True
            return
        while offset < end:
            try:
                data = os.lseek(self._descriptor, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                data = end  # none behind here
            if data > offset:
                hole = min(data, end)
                yield hole - offset, False
                offset = hole
            if offset < end:
                hole = min(os.lseek(self._descriptor, offset, os.SEEK_HOLE), end)
                yield hole - offset, True
                offset = hole

    def flush(self) -> None:
        if self._writable:
            self._file.flush()

    def close(self) -> None:
        try:
            self.flush()
        finally:
            os.close(self._descriptor)
            self._file.close()


class TrackedDisk:
    """Notes in a CBT log what is written, before it is: what is killed in between has noted too much, never too little.

    The log is mapped: the kernel keeps what was noted when this process is killed.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._lock = threading.Lock()
        self.trims = disk.trims
        with open(path, "r+b") as file:
            log = parse_log(file.read())
            if log.size < disk.size:
                raise OSError(errno.EINVAL, f"the log is of a disk of {log.size} bytes, not {disk.size}", path)
            self._map = mmap.mmap(file.fileno(), _CBT_HEADER + len(log.bitmap))

    @property
    def size(self) -> int:
        return self._disk.size

    def _note(self, offset: int, length: int) -> None:
        for block in range(offset // CBT_BLOCK, -(-(offset + length) // CBT_BLOCK)):
            at, bit = _CBT_HEADER + (block >> 3), 1 << (block & 7)
            # Setting a bit is no single step for threads; a bit that is there needs none.
            if not self._map[at] & bit:
                with self._lock:
                    self._map[at] |= bit

    def read(self, offset: int, length: int) -> bytes:
        return self._disk.read(offset, length)

    def write(self, offset: int, data: memoryview) -> None:
        self._note(offset, len(data))
        self._disk.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._note(offset, length)
        self._disk.zero(offset, length)

    def trim(self, offset: int, length: int) -> None:
        self._note(offset, length)
        self._disk.trim(offset, length)

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        return self._disk.extents(offset, length)

    def flush(self) -> None:
        self._map.flush()
        self._disk.flush()

    def close(self) -> None:
        try:
            self._map.flush()
            self._map.close()
        finally:
            self._disk.close()
