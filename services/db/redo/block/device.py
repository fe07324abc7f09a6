"""The device or file: opening it, and the few ways in which it is written. Raises `OSError`, or `Unusable`."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final

from services.db.disk import Disk
from shared.redo_blocks import layout
from shared.redo_blocks.layout import Geometry, Half

LOCK_WAIT: Final = 10.0
"""Seconds that a lock is waited for: the child of a process that was killed may still have it."""
LOCK_STEP: Final = 0.1

BLANK: Final = 1024 * 1024
"""Bytes at the beginning and at the end that are zero where nobody has anything: labels and superblocks lie there."""

BLOCK: Final = 4096
"""A file that is made has whole ones, so that a loop device of it is not too short."""


class Unusable(Exception):
    """The device cannot be the redo log; the text says why, and what to do."""


class Device:
    """`format`: it may be overwritten when it holds something else."""

    def __init__(self, path: Path, disk: Disk, geometry: Geometry, format: bool = False) -> None:
        self.path = path
        self.geometry = geometry
        self.disk = disk
        self._format = format
        self.descriptor = -1

    # ---- opening

    def open(self, *, create: bool = False, wait: float = 0.0, write: bool = True) -> None:
        """For this process alone, unless it only reads. `create`: a file that is not there is made."""
        self.close()
        try:
            mode = os.stat(self.path).st_mode
        except FileNotFoundError:
            if not create:
                raise
            self._create()
            mode = os.stat(self.path).st_mode
        if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
            raise Unusable("it is neither a block device nor a file")
        flags = os.O_RDWR if write else os.O_RDONLY
        if stat.S_ISBLK(mode) and write:
            flags |= os.O_EXCL
        self._open(flags, time.monotonic() + wait)
        try:
            if write:
                self._lock(time.monotonic() + wait)
            self._check_size()
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # another host may have written it
        except BaseException:
            self.close()
            raise

    def _open(self, flags: int, until: float) -> None:
        while True:
            try:
                self.descriptor = self.disk.open(self.path, flags)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            else:
                return
            _wait(until)

    def _lock(self, until: float) -> None:
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _wait(until)
            else:
                return

    def _check_size(self) -> None:
        size, needed = self.disk.size(self.descriptor), self.geometry.size
        if size < needed:
            raise Unusable(f"it has {size} bytes, a redo log needs {needed}")

    def _create(self) -> None:
        """With all its room, so that a file system that fills up cannot take it away."""
        folder = self.path.parent
        if not folder.is_dir():
            raise Unusable(f"there is no folder {folder}")
        if folder.resolve().is_relative_to("/dev"):
            raise Unusable("there is no such device")
        new = self.path.with_name(self.path.name + ".new")
        descriptor = self.disk.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            for at in range(0, -(-self.geometry.size // BLOCK) * BLOCK, BLANK):
                self.disk.write_all(descriptor, bytes(min(BLANK, -(-(self.geometry.size - at) // BLOCK) * BLOCK)), at)
            self.disk.sync(descriptor)
        except OSError:
            self.disk.unlink(new)
            raise
        finally:
            self.disk.close(descriptor)
        self.disk.rename(new, self.path)

    def close(self) -> None:
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            self.disk.close(descriptor)

    # ---- what it is

    def valid(self) -> Half:
        """Which half is valid. Raises `Unusable` for a device that holds something else."""
        head = self.read(0, layout.HALVES)
        if not head.startswith(layout.MAGIC):
            raise Unusable("it holds no redo log")
        half = layout.valid_half(head)
        if half is None:
            raise Unusable(f"its validity byte is {head[layout.VALIDITY :]!r}, which names no half: {_ADVICE}")
        return half

    def prepare(self) -> None:
        """A blank one becomes an empty redo log, and an empty one certainly is one, whatever an earlier attempt to make
        it has come to. Raises `Unusable` when it holds something else.
        """
        head = self.read(0, layout.HALVES)
        ours = head.startswith(layout.MAGIC)
        if ours and layout.valid_half(head) is not Half.NONE:
            return
        if not ours and not self._format and not self._blank():
            raise Unusable(
                "it holds something that is no redo log; if that may be lost, blank its first and last MiB, or set the "
                "option redo_log_format"
            )
        self.disk.write_all(self.descriptor, layout.header(Half.NONE), 0)
        self.disk.sync(self.descriptor)
        if stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            self.disk.sync_folder(self.path.parent)

    def _blank(self) -> bool:
        """Nothing, or what a crash has left of the header."""
        size = self.disk.size(self.descriptor)
        first, last = (self.disk.read(self.descriptor, min(BLANK, size), at) for at in (0, max(0, size - BLANK)))
        rest = first.rstrip(b"\0")
        return layout.header(Half.NONE).startswith(rest) and (size <= BLANK or not any(last))

    # ---- reading and writing

    def read(self, at: int, length: int) -> bytes:
        found = self.disk.read(self.descriptor, length, at)
        if len(found) < length:
            raise OSError(errno.EIO, f"{length - len(found)} bytes are missing at {at}")
        return found

    def read_half(self, half: Half) -> bytes:
        return self.read(self.geometry.start(half), self.geometry.half)

    def prepare_append(self, at: int, records: bytes) -> None:
        """The first of two steps, after which every reader finds all of the records, or none of them.

        Behind what is there stand NULs: no length, so the log ends. Everything but the first record's length is written
        behind them and synced; nobody reads it.
        """
        self.disk.write_all(self.descriptor, records[layout.NUMBER :] + layout.END, at + layout.NUMBER)
        self.disk.sync(self.descriptor)

    def append(self, at: int, records: bytes) -> None:
        """The second: the length. From there on all of it counts, durably when this returns.

        A length that a crash has cut is no number, so the log still ends before it.
        """
        self.disk.write_all(self.descriptor, records[: layout.NUMBER], at)
        self.disk.sync(self.descriptor)

    def put(self, at: int, records: bytes) -> None:
        """Durable when it returns; for where nobody reads before it does."""
        self.disk.write_all(self.descriptor, records + layout.END, at)
        self.disk.sync(self.descriptor)

    def end_at(self, at: int) -> None:
        """Nothing behind counts."""
        self.put(at, b"")

    def set_valid(self, half: Half) -> None:
        self.disk.write_all(self.descriptor, half.byte, layout.VALIDITY)
        self.disk.sync(self.descriptor)


_ADVICE: Final = "look at it with `python -m services.db.redo.block dump`, and give it up with `empty`"


def _wait(until: float) -> None:
    """Before trying again. Raises `Unusable` when that is over."""
    if time.monotonic() >= until:
        raise Unusable("another process uses it")
    time.sleep(LOCK_STEP)
