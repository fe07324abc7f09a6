"""Checksummed records in our own files: `length (u32) | crc32 (u32) | body`, little endian."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

_HEADER: Final = struct.Struct("<II")
MAX_BODY: Final = 256 * 1024 * 1024


def encode(body: bytes) -> bytes:
    return _HEADER.pack(len(body), zlib.crc32(body)) + body


def decode(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(end offset, body) of every whole record; stops at the first that is torn or damaged."""
    while offset + _HEADER.size <= len(data):
        length, crc = _HEADER.unpack_from(data, offset)
        begin = offset + _HEADER.size
        if length == 0 or length > MAX_BODY or begin + length > len(data):
            return
        body = data[begin : begin + length]
        if zlib.crc32(body) != crc:
            return
        offset = begin + length
        yield offset, body
