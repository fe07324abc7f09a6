"""Which blocks of a disk changed, as bitmaps: the most significant bit of the first byte is the first block."""

from __future__ import annotations

BLOCK = 64 << 10
"""Bytes that one bit stands for."""


class Bitmap:
    """Of a disk of `size` bytes, with no bit set."""

    def __init__(self, size: int) -> None:
        self.blocks = -(-size // BLOCK)
        self._bytes = bytearray(-(-self.blocks // 8))

    def add(self, offset: int, length: int) -> None:
        """Sets the bits of all blocks that a range of bytes touches; what lies beyond the disk is left out."""
        begin, end = offset // BLOCK, min(-(-(offset + length) // BLOCK), self.blocks)
        if length <= 0 or begin >= end:
            return
        first, last = begin // 8, (end - 1) // 8
        head, tail = 0xFF >> begin % 8, 0xFF << 7 - (end - 1) % 8 & 0xFF
        if first == last:
            self._bytes[first] |= head & tail
            return
        self._bytes[first] |= head
        self._bytes[first + 1 : last] = b"\xff" * (last - first - 1)
        self._bytes[last] |= tail

    def add_all(self) -> None:
        self.add(0, self.blocks * BLOCK)

    def unite(self, other: bytes) -> None:
        """With the bitmap of a disk of the same or another size; of a larger one, what fits."""
        mine = self._bytes
        fitting = bytes(other[: len(mine)]).ljust(len(mine), b"\0")
        merged = int.from_bytes(mine) | int.from_bytes(fitting)
        self._bytes = bytearray(merged.to_bytes(len(mine)))
        if self.blocks % 8:
            self._bytes[-1] &= 0xFF << 8 - self.blocks % 8 & 0xFF

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)
