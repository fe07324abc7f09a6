"""A text file that only grows, and moves aside when it is large: blocking, for use in a thread."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Final

LIMIT: Final = 16 * 1024 * 1024
KEPT: Final = 8
"""Older files beside the current one: `<name>.1` is the latest of them."""


class RotatingFile:
    """`limit`: bytes of one file, at most, unless a single batch is larger. Opened with the first write.

    Raises OSError; a batch that fails has left nothing behind and can be written again.
    """

    def __init__(self, path: Path, limit: int = LIMIT, kept: int = KEPT) -> None:
        self.path = path
        self._limit = limit
        self._kept = kept
        self._file: int | None = None
        self._size = 0

    def write(self, batch: bytes) -> None:
        """Whole lines."""
        if self._file is None:
            self._open()
        if self._size and self._size + len(batch) > self._limit:
            self._rotate()
        assert self._file is not None
        left = memoryview(batch)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(batch)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            self._size += os.write(self._file, b"\n")  # the machine stopped within a line

    def _rotate(self) -> None:
        for number in range(self._kept - 1, 0, -1):
            if self._older(number).exists():
                self._older(number).replace(self._older(number + 1))
        self.path.replace(self._older(1))
        self._close()
        self._open()

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """What was written is on the disk afterwards."""
        if self._file is not None:
            os.fsync(self._file)
        self._close()

    def files(self) -> list[Path]:
        """Those that there are, the oldest first."""
        older = [self._older(number) for number in range(self._kept, 0, -1)]
        return [path for path in (*older, self.path) if path.exists()]

    def opened(self) -> list[BinaryIO]:
        """The same, open: they stay readable when they move on. The caller closes them."""
        return [path.open("rb") for path in self.files()]
