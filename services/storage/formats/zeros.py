"""Finding zeros in data at the speed of memcmp: nothing here looks at single bytes in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_ZEROS: Final = bytes(1 << 21)


def zeros(length: int) -> bytes:
    """So many zero bytes, without making them anew where that can be."""
    return _ZEROS if length == len(_ZEROS) else _ZEROS[:length] if length < len(_ZEROS) else bytes(length)


def is_zero(data: bytes) -> bool:
    """Whether all of it is zeros; most data answers at its first bytes."""
    length = len(data)
    if length <= len(_ZEROS):
        return _ZEROS.startswith(data)
    return all(data.startswith(_ZEROS[: length - at], at) for at in range(0, length, len(_ZEROS)))


def runs(data: bytes, grain: int) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, zero) of the runs of grains that are, or are not, all zeros; the last grain may be short."""
    length = len(data)
    if is_zero(data):
        if length:
            yield 0, length, True
        return
    grain_of_zeros = zeros(grain)
    tail = length - length % grain
    begin, state = 0, data.startswith(grain_of_zeros) if tail else is_zero(data)
    for at in range(grain, tail, grain):
        if data.startswith(grain_of_zeros, at) is not state:
            yield begin, at, state
            begin, state = at, not state
    if 0 < tail < length and is_zero(data[tail:]) is not state:
        yield begin, tail, state
        begin, state = tail, not state
    yield begin, length, state
