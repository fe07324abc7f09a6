from __future__ import annotations

import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storage.formats.cbt import (
    BLOCK_SIZE,
    Log,
    changed_ranges,
    from_api,
    merge,
    new_log,
    parse_log,
    to_api,
    union,
)
from services.storage.formats.interface import FormatError

SIZE = 1000 * BLOCK_SIZE - 77
RANGES = st.lists(
    st.integers(0, SIZE - 1).flatmap(
        lambda offset: st.tuples(st.just(offset), st.integers(0, min(SIZE - offset, 300 * BLOCK_SIZE)))
    ),
    max_size=6,
)


def _blocks(ranges: list[tuple[int, int]]) -> set[int]:
    return {
        block
        for offset, length in ranges
        if length
        for block in range(offset // BLOCK_SIZE, (offset + length - 1) // BLOCK_SIZE + 1)
    }


@given(st.uuids(), st.uuids(), st.booleans(), RANGES)
def test_a_log_reads_as_it_was_written(
    parent: uuid.UUID, child: uuid.UUID, consistent: bool, ranges: list[tuple[int, int]]
) -> None:
    log = Log(SIZE, parent, child, consistent).marked(ranges)
    data = log.pack()
    assert len(data) == 48 + 125
    assert parse_log(data) == log


def test_the_layout_is_the_one_of_the_original() -> None:
    parent, child = uuid.uuid4(), uuid.uuid4()
    log = Log(20 * BLOCK_SIZE, parent, child, True).marked([(0, 1), (9 * BLOCK_SIZE, 1)])
    expected = parent.bytes + child.bytes + struct.pack("<i4xQ", 1, 20 * BLOCK_SIZE) + b"\x01\x02\x00"
    assert log.pack() == expected
    assert to_api(log.bitmap) == b"\x80\x40\x00"


@given(RANGES)
def test_changed_ranges_are_the_blocks_that_were_marked(ranges: list[tuple[int, int]]) -> None:
    log = new_log(SIZE).marked(ranges)
    found = list(changed_ranges(log.bitmap, SIZE))
    assert _blocks(found) == _blocks(ranges)
    assert all(offset + length <= SIZE for offset, length in found)
    api = to_api(log.bitmap)
    assert from_api(api) == log.bitmap
    set_bits = {block for block in range(len(api) * 8) if api[block // 8] & 0x80 >> block % 8}
    assert set_bits == _blocks(ranges)


@given(RANGES, RANGES)
def test_the_union_of_logs_has_the_changes_of_all(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    older, newer = new_log(SIZE).marked(one), new_log(SIZE + 70 * BLOCK_SIZE).marked(two)
    both = union([older, newer])
    assert len(both) == len(newer.bitmap)
    assert _blocks(list(changed_ranges(both, newer.size))) == _blocks(one) | _blocks(two)
    assert older.resized(newer.size).bitmap == union([older, new_log(newer.size)])


def test_a_deleted_disk_leaves_its_changes_and_its_parent_to_the_next() -> None:
    one, two, three = (uuid.uuid4() for _ in range(3))
    older = Log(SIZE, one, three, True).marked([(0, 1)])
    newer = Log(SIZE, two, uuid.UUID(int=5), False).marked([(BLOCK_SIZE, 1)])
    merged = merge(older, newer)
    assert (merged.parent, merged.child, merged.consistent) == (one, newer.child, False)
    assert merged.bitmap[:1] == b"\x03"


def test_wrong_logs_are_refused() -> None:
    data = new_log(SIZE).pack()
    for wrong, message in (
        (b"", "less than its header"),
        (data[:47], "less than its header"),
        (data[:-1], "bytes of bitmap"),
        (data[:32] + b"\x02" + data[33:], "consistent"),
        (data[:40] + b"\xff" * 8 + data[48:], "a disk of"),
    ):
        with pytest.raises(FormatError, match=message):
            parse_log(wrong)
    with pytest.raises(FormatError, match="shrunk"):
        union([new_log(SIZE), new_log(BLOCK_SIZE)])
    with pytest.raises(FormatError, match="shrink"):
        new_log(SIZE).resized(BLOCK_SIZE)
    with pytest.raises(FormatError, match="not of a disk"):
        new_log(SIZE).marked([(SIZE, 1)])
