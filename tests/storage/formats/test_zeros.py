from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storage.formats.zeros import is_zero, runs, zeros

PARTS = st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=12)


def _joined(parts: list[tuple[int, bool]]) -> bytes:
    return b"".join((b"\0" if zero else b"x") * length for length, zero in parts)


@given(PARTS, st.integers(1, 16))
def test_runs_cover_the_data_and_say_what_is_in_it(parts: list[tuple[int, bool]], grain: int) -> None:
    data = _joined(parts)
    found = list(runs(data, grain))
    assert [begin for begin, _, _ in found] == [0, *(end for _, end, _ in found)][: len(found)]
    assert sum(end - begin for begin, end, _ in found) == len(data)
    assert all(one[2] is not two[2] for one, two in pairwise(found))
    for begin, end, zero in found:
        grains = [data[at : at + grain] for at in range(begin, end, grain)]
        assert all(any(part) is not zero for part in grains)


@pytest.mark.parametrize("length", [0, 1, 512, 1 << 21, (1 << 21) + 1, 5 << 20])
def test_one_byte_anywhere_makes_data_not_zero(length: int) -> None:
    assert is_zero(zeros(length))
    assert len(zeros(length)) == length
    for at in {0, length // 2, length - 1} if length else ():
        data = bytearray(length)
        data[at] = 1
        assert not is_zero(bytes(data))
