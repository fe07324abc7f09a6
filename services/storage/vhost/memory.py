"""Memory that this process and the servers of disks share: pieces of disks lie in it, and nobody passes them on.

A slot is in use as long as anything refers to its bytes, as a part of it or as a whole: who gets a piece need not say
when it is through with it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import Final

from services.storage.formats.interface import PIECE, Data

SLOTS: Final = 24
"""For two disks that are read ahead, one that is written behind, and what is on its way to a client."""
_Slot = ctypes.c_char * PIECE


class Memory:
    """`descriptor`: a file of `size` bytes, which lies at `address` in this process."""

    def __init__(self, slots: int = SLOTS) -> None:
        self.size = slots * PIECE
        self.descriptor = os.memfd_create("disks", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, self.size)
        self._mapped = mmap.mmap(self.descriptor, self.size)
        self.address = address(memoryview(self._mapped))
        self._free = list(range(0, self.size, PIECE))
        self._taken: dict[int, weakref.ref[ctypes.Array[ctypes.c_char]]] = {}

    def take(self, length: int) -> memoryview | None:
        """So many bytes, at most `PIECE`, of no particular content; None when all slots are in use."""
        if not self._free or length > PIECE:
            return None
        offset = self._free.pop()  # the one that was in use last, which is in the processor's cache

        def give_back(_: object) -> None:
            del self._taken[offset]
            self._free.append(offset)

        slot = _Slot.from_buffer(self._mapped, offset)
        self._taken[offset] = weakref.ref(slot, give_back)
        return memoryview(slot).cast("B")[:length]

    def place(self, data: Data) -> int | None:
        """Where in the file the bytes lie; None for bytes that are elsewhere."""
        if not isinstance(data, memoryview) or data.readonly or not len(data):
            return None
        offset = address(data) - self.address
        return offset if 0 <= offset < self.size else None

    def close(self) -> None:
        """The mapping stays as long as anything refers to its bytes."""
        os.close(self.descriptor)


def address(data: memoryview) -> int:
    """Of bytes that can be written to."""
    return ctypes.addressof(ctypes.c_char.from_buffer(data))
