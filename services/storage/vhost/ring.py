"""A split virtqueue, the driver's side (virtio 1.1, 2.6), with requests for a block device (5.2.6).

Each request takes three descriptors of its own: its head, its data, its status.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

IN_FLIGHT: Final = 16
SECTOR: Final = 512

ENTRIES: Final = 64
"""Of the queue, a power of two: three for each request in flight."""
DESCRIPTORS_AT: Final = 0
AVAILABLE_AT: Final = 16 * ENTRIES
USED_AT: Final = 2048
_HEADS_AT: Final = 4096
_STATUSES_AT: Final = _HEADS_AT + 16 * IN_FLIGHT
SIZE: Final = 8192
"""Bytes of the memory that a queue needs."""

_DESCRIPTOR = struct.Struct("<QIHH")
_HEAD = struct.Struct("<IIQ")
_HALF = struct.Struct("<H")
_NEXT, _DEVICE_WRITES = 1, 2
_UNANSWERED: Final = 0xFF


class Kind(IntEnum):
    READ = 0
    WRITE = 1


class Ring:
    """`memory`: `SIZE` bytes, zeros, which the device finds at `base`. Requests are numbered from 0 to before
    `IN_FLIGHT`.
    """

    def __init__(self, memory: memoryview, base: int) -> None:
        self._memory, self._base = memory, base
        self._available = self._used = 0
        """How many were made available, and how many were seen to be used, modulo 2**16."""

    def put(self, number: int, kind: Kind, offset: int, place: int, length: int) -> None:
        """Makes a request available to the device, which has to be told. `place`: of the data, as the device has it.

        The index is written last. What orders the writes for the device is the system call that tells it, and those
        that come between any two of them in this interpreter: on processors that write in order nothing else is needed.
        """
        memory, first = self._memory, 3 * number
        head, status = _HEADS_AT + 16 * number, _STATUSES_AT + number
        _HEAD.pack_into(memory, head, kind, 0, offset // SECTOR)
        memory[status] = _UNANSWERED
        data_flags = _NEXT | (_DEVICE_WRITES if kind is Kind.READ else 0)
        self._describe(first, self._base + head, _HEAD.size, _NEXT, first + 1)
        self._describe(first + 1, place, length, data_flags, first + 2)
        self._describe(first + 2, self._base + status, 1, _DEVICE_WRITES, 0)
        _HALF.pack_into(memory, AVAILABLE_AT + 4 + 2 * (self._available % ENTRIES), first)
        self._available = (self._available + 1) & 0xFFFF
        _HALF.pack_into(memory, AVAILABLE_AT + 2, self._available)

    def done(self) -> Iterator[tuple[int, bool]]:
        """(number, whether it went well) of what the device has answered since."""
        (used,) = _HALF.unpack_from(self._memory, USED_AT + 2)
        while self._used != used:
            (first,) = _HALF.unpack_from(self._memory, USED_AT + 4 + 8 * (self._used % ENTRIES))
            self._used = (self._used + 1) & 0xFFFF
            number = first // 3
            if number < IN_FLIGHT:
                yield number, self._memory[_STATUSES_AT + number] == 0

    def _describe(self, index: int, place: int, length: int, flags: int, following: int) -> None:
        _DESCRIPTOR.pack_into(self._memory, DESCRIPTORS_AT + 16 * index, place, length, flags, following)
