"""Finding zeros in data at the speed of memcmp: nothing here looks at single bytes in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.storage.formats.interface import Data

_ZEROS: Final = bytes(1 << 21)


def zeros(length: int) -> bytes:
    """So many zero bytes, without making them anew where that can be."""
    return _ZEROS if length == len(_ZEROS) else _ZEROS[:length] if length < len(_ZEROS) else bytes(length)


def is_zero(data: Data) -> bool:
    """Whether all of it is zeros; most data answers at its first bytes."""
    length = len(data)
    if length <= len(_ZEROS):
        return _ZEROS.startswith(data)
    view = memoryview(data)
    return all(_ZEROS.startswith(view[at : at + len(_ZEROS)]) for at in range(0, length, len(_ZEROS)))


def runs(data: Data, grain: int) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, zero) of the runs of grains that are, or are not, all zeros; the last grain may be short."""
    length = len(data)
    if is_zero(data):
        if length:
            yield 0, length, True
        return
    view = memoryview(data)
    begin, state = 0, is_zero(view[:grain])
    for at in range(grain, length, grain):
        if is_zero(view[at : at + grain]) is not state:
            yield begin, at, state
            begin, state = at, not state
    yield begin, length, state
