"""qcow2 streams of disks: version 3, clusters of 64 KiB, no backing file, tables before data.

The order is header, refcount table, refcount blocks, L1, L2, data; so every offset follows from which clusters there
are, and the length is known before the first byte.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from services.storage.formats.interface import PIECE, FormatError, Output, Source
from services.storage.formats.qcow2.header import CLUSTER_SIZE, COPIED, MAX_L1, ZERO, Header
from services.storage.formats.reading import Coverage, read_ahead, units_changed, units_with_data
from services.storage.formats.zeros import zeros

_L2_ENTRIES: Final = CLUSTER_SIZE // 8
_REFCOUNTS: Final = CLUSTER_SIZE // 2
"""Refcounts of 16 bits in a block."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stream is going to hold; `length` is its exact number of bytes. The others count clusters (or entries)."""

    coverage: Coverage
    data: int
    tables: tuple[int, ...]
    """Indices of the L1 entries that have an L2 table."""
    refcount_blocks: int

    @property
    def size(self) -> int:
        """Of the disk, in whole sectors."""
        return -(-self.coverage.size // 512) * 512

    @property
    def l1_entries(self) -> int:
        return -(-self.coverage.size // (CLUSTER_SIZE * _L2_ENTRIES))

    @property
    def l1_clusters(self) -> int:
        return -(-self.l1_entries * 8 // CLUSTER_SIZE)

    @property
    def refcount_table(self) -> int:
        return -(-self.refcount_blocks * 8 // CLUSTER_SIZE)

    @property
    def l1_at(self) -> int:
        return 1 + self.refcount_table + self.refcount_blocks

    @property
    def l2_at(self) -> int:
        return self.l1_at + self.l1_clusters

    @property
    def data_at(self) -> int:
        return self.l2_at + len(self.tables)

    @property
    def clusters(self) -> int:
        return self.data_at + self.data

    @property
    def length(self) -> int:
        return self.clusters * CLUSTER_SIZE


async def plan_full(source: Source) -> Plan:
    """All clusters that are not known to be zeros."""
    return _plan(await units_with_data(source, CLUSTER_SIZE))


async def plan_changed(source: Source, changed: Iterable[tuple[int, int]]) -> Plan:
    """The clusters that a range (offset, length) touches, for who puts them over the base; zeros cost no data."""
    return _plan(await units_changed(source, CLUSTER_SIZE, changed))


def _plan(coverage: Coverage) -> Plan:
    tables: list[int] = []
    for begin, end, _ in coverage.runs():
        first = begin // _L2_ENTRIES
        if tables and tables[-1] == first:
            first += 1
        tables.extend(range(first, (end - 1) // _L2_ENTRIES + 1))
    blocks = 0
    while True:
        plan = Plan(coverage, coverage.count(zero=False), tuple(tables), blocks)
        needed = -(-plan.clusters // _REFCOUNTS)
        if needed <= blocks:
            break
        blocks = needed
    if plan.l1_entries > MAX_L1:
        raise FormatError(f"a qcow2 image of clusters of 64 KiB cannot hold {plan.size} bytes")
    return plan


async def write_qcow2(source: Source, output: Output, plan: Plan) -> None:
    """Exactly `plan.length` bytes. The disk must be the one of the plan, and must not change in between."""
    header = Header(
        size=plan.size,
        l1_entries=plan.l1_entries,
        l1_offset=plan.l1_at * CLUSTER_SIZE,
        refcounts_offset=CLUSTER_SIZE,
        refcounts_clusters=plan.refcount_table,
    )
    await output.write(header.pack().ljust(CLUSTER_SIZE, b"\0"))
    first_block = 1 + plan.refcount_table
    blocks = range(first_block * CLUSTER_SIZE, plan.l1_at * CLUSTER_SIZE, CLUSTER_SIZE)
    await _write_long(output, _padded(array("Q", blocks)))
    for block in range(plan.refcount_blocks):
        used = min(_REFCOUNTS, plan.clusters - block * _REFCOUNTS)
        await output.write((b"\0\1" * used).ljust(CLUSTER_SIZE, b"\0"))
    await _write_long(output, _padded(_l1(plan)))
    for table in _l2_tables(plan):
        await output.write(_padded(table))
    end = 0
    async with aclosing(read_ahead(source, plan.coverage.extents())) as pieces:
        async for piece in pieces:
            if piece.data is not None:
                await output.write(piece.data)
                end = piece.offset + piece.length
    if end % CLUSTER_SIZE:
        await output.write(zeros(-end % CLUSTER_SIZE))


def _l1(plan: Plan) -> array[int]:
    l1 = array("Q", bytes(8 * plan.l1_entries))
    for number, index in enumerate(plan.tables):
        l1[index] = (plan.l2_at + number) * CLUSTER_SIZE | COPIED
    return l1


def _l2_tables(plan: Plan) -> Iterator[array[int]]:
    """In the order of their clusters; one at a time is in memory."""
    table, current = array("Q", bytes(CLUSTER_SIZE)), -1
    at = plan.data_at * CLUSTER_SIZE
    for begin, end, zero in plan.coverage.runs():
        while begin < end:
            index, entry = divmod(begin, _L2_ENTRIES)
            if index != current:
                if current >= 0:
                    yield table
                table, current = array("Q", bytes(CLUSTER_SIZE)), index
            count = min(end - begin, _L2_ENTRIES - entry)
            if zero:
                table[entry : entry + count] = array("Q", [ZERO]) * count
            else:
                after = at + count * CLUSTER_SIZE
                table[entry : entry + count] = array("Q", range(at | COPIED, after | COPIED, CLUSTER_SIZE))
                at = after
            begin += count
    if current >= 0:
        yield table


def _padded(table: array[int]) -> bytes:
    """Big-endian, in whole clusters."""
    if sys.byteorder == "little":
        table = table[:]
        table.byteswap()
    data = table.tobytes()
    return data.ljust(-(-len(data) // CLUSTER_SIZE) * CLUSTER_SIZE, b"\0")


async def _write_long(output: Output, data: bytes) -> None:
    for at in range(0, len(data), PIECE):
        await output.write(data[at : at + PIECE])
