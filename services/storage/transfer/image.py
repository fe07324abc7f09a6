"""The file of an image that is only read, mapped: its data goes to who wants it without a copy, and without its server.

The server (`vhost.server`) has the image open meanwhile, and locked, so nobody changes it. What does not lie in the
file as it is in the disk (compressed, in a backing file, not in one piece) is asked of the server.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
from array import array
from collections.abc import Callable
from typing import Final, Protocol

from services.storage.formats.interface import PIECE, FormatError
from services.storage.formats.qcow2.header import COPIED, HEADER_V3, OFFSET, Header, parse_header

_WINDOW: Final = 16 << 20
"""Bytes of the file that are mapped at a time."""


class Placement(Protocol):
    """Where the data of a disk lies in its file."""

    def find(self, offset: int, length: int) -> int | None:
        """The place of that part of the disk; None if it is not there in one piece."""
        ...


class Raw(Placement):
    def __init__(self, _: int) -> None: ...

    def find(self, offset: int, length: int) -> int | None:
        return offset


class Qcow2(Placement):
    """By the tables of the active layer; the last one is kept."""

    def __init__(self, descriptor: int) -> None:
        """Raises `FormatError`, OSError."""
        self._descriptor = descriptor
        self._header = header = parse_header(os.pread(descriptor, HEADER_V3, 0))
        self._l1 = self._read(header.l1_offset, header.l1_entries)
        self._number, self._l2 = -1, array("Q")

    def find(self, offset: int, length: int) -> int | None:
        header = self._header
        if length <= 0 or offset + length > header.size:
            return None
        first, last = offset >> header.cluster_bits, (offset + length - 1) >> header.cluster_bits
        number, begin = divmod(first, header.l2_entries)
        end = begin + last - first + 1
        if end > header.l2_entries or not self._have(number, header):
            return None
        entry = self._l2[begin]
        if not entry & OFFSET or entry & ~(OFFSET | COPIED) or entry & header.cluster_size - 1:
            return None
        in_one_piece = array("Q", range(entry, entry + (end - begin << header.cluster_bits), header.cluster_size))
        if self._l2[begin:end] != in_one_piece:
            return None
        return (entry & OFFSET) + (offset & header.cluster_size - 1)

    def _have(self, number: int, header: Header) -> bool:
        if number != self._number:
            place = self._l1[number] & OFFSET
            if not place:
                return False
            self._l2, self._number = self._read(place, header.l2_entries), number
        return True

    def _read(self, place: int, entries: int) -> array[int]:
        table = array("Q", os.pread(self._descriptor, entries * 8, place))
        if len(table) < entries:
            raise FormatError(f"qcow2: a table of {entries} entries at {place} is cut")
        if sys.byteorder == "little":
            table.byteswap()
        return table


_PLACEMENTS: Final[dict[str, Callable[[int], Placement]]] = {"raw": Raw, "qcow2": Qcow2}
"""By the format of the image, from the descriptor of its file."""


class Image:
    """An open file. Where the disk under it grows meanwhile, or the file shrinks, is the server's to prevent."""

    def __init__(self, descriptor: int, placement: Placement) -> None:
        self._descriptor, self._placement = descriptor, placement
        self._size = os.fstat(descriptor).st_size
        self._begin, self._window = -1, memoryview(b"")

    @classmethod
    def open(cls, path: str, form: str) -> Image | None:
        """None for what its server has to read."""
        if form not in _PLACEMENTS:
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return cls(descriptor, _PLACEMENTS[form](descriptor))
        except (FormatError, OSError):
            pass  # the server can read it, or says why not
        os.close(descriptor)
        return None

    def data(self, offset: int, length: int) -> memoryview | None:
        """A part of the disk, at most `PIECE` bytes; None for what its server has to read. It is read from the file
        when it is looked at: an error then is the signal SIGBUS.
        """
        try:
            place = self._placement.find(offset, length)
        except (FormatError, OSError):
            return None  # the server says what is wrong
        if place is None or length > PIECE or place + length > self._size:
            return None
        begin = place - place % _WINDOW
        if begin != self._begin:
            os.posix_fadvise(self._descriptor, begin + _WINDOW, _WINDOW, os.POSIX_FADV_WILLNEED)
            room = min(_WINDOW + PIECE, self._size - begin)
            self._window = memoryview(mmap.mmap(self._descriptor, room, prot=mmap.PROT_READ, offset=begin))
            self._begin = begin
        return self._window[place - begin : place - begin + length]

    def close(self) -> None:
        """What was given stays mapped as long as anything refers to it."""
        self._begin, self._window = -1, memoryview(b"")
        os.close(self._descriptor)
