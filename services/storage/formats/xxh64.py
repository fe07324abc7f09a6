"""XXH64 (seed 0), the checksum of a disk's chunks in an XVA: by libxxhash where the system has it, else plainly.

The plain way costs some 50 ms for a chunk of 1 MiB.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Final

_MASK: Final = (1 << 64) - 1
_P1: Final = 0x9E3779B185EBCA87
_P2: Final = 0xC2B2AE3D27D4EB4F
_P3: Final = 0x165667B19E3779F9
_P4: Final = 0x85EBCA77C2B2AE63
_P5: Final = 0x27D4EB2F165667C5
_STRIPE: Final = struct.Struct("<QQQQ")


def plain_xxh64(data: bytes) -> int:
    """As the specification's steps say (xxHash fast digest algorithm, version 0.1.1)."""
    tail = len(data) // _STRIPE.size * _STRIPE.size
    if tail:
        a, b, c, d = _P1 + _P2 & _MASK, _P2, 0, -_P1 & _MASK
        for one, two, three, four in _STRIPE.iter_unpack(data[:tail]):
            a = a + one * _P2 & _MASK
            a = (a << 31 | a >> 33) * _P1 & _MASK
            b = b + two * _P2 & _MASK
            b = (b << 31 | b >> 33) * _P1 & _MASK
            c = c + three * _P2 & _MASK
            c = (c << 31 | c >> 33) * _P1 & _MASK
            d = d + four * _P2 & _MASK
            d = (d << 31 | d >> 33) * _P1 & _MASK
        hashed = _left(a, 1) + _left(b, 7) + _left(c, 12) + _left(d, 18) & _MASK
        for lane in (a, b, c, d):
            hashed = (hashed ^ _round(lane)) * _P1 + _P4 & _MASK
    else:
        hashed = _P5
    hashed = hashed + len(data) & _MASK
    at = tail
    while at + 8 <= len(data):
        hashed = _left(hashed ^ _round(int.from_bytes(data[at : at + 8], "little")), 27) * _P1 + _P4 & _MASK
        at += 8
    if at + 4 <= len(data):
        word = int.from_bytes(data[at : at + 4], "little")
        hashed = _left(hashed ^ word * _P1 & _MASK, 23) * _P2 + _P3 & _MASK
        at += 4
    for byte in data[at:]:
        hashed = _left(hashed ^ byte * _P5 & _MASK, 11) * _P1 & _MASK
    hashed = (hashed ^ hashed >> 33) * _P2 & _MASK
    hashed = (hashed ^ hashed >> 29) * _P3 & _MASK
    return hashed ^ hashed >> 32


def _left(value: int, by: int) -> int:
    return (value << by | value >> 64 - by) & _MASK


def _round(word: int) -> int:
    return _left(word * _P2 & _MASK, 31) * _P1 & _MASK


def _choose() -> Callable[[bytes], int]:
    try:
        function = ctypes.CDLL("libxxhash.so.0").XXH64
    except (OSError, AttributeError):
        return plain_xxh64
    function.restype = ctypes.c_uint64
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)

    def by_library(data: bytes) -> int:
        return int(function(data, len(data), 0))

    return by_library


xxh64: Final[Callable[[bytes], int]] = _choose()
"""The 64 bits of the hash."""
