"""VHD streams of disks: footer, header, BAT, whole blocks in order with all sectors present, footer.

The layout is that of the original's exports: the BAT at 2048, no parent locators (a differencing disk names its parent
by uuid and name). The creator differs: with blktap's, other readers take the size of the disk from the footer and not
from the geometry, which is often smaller.
"""

from __future__ import annotations

import os
import uuid as uuids
from array import array
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from services.storage.formats.interface import PIECE, Output, Source
from services.storage.formats.reading import Coverage, read_ahead, units_changed, units_with_data
from services.storage.formats.vhd import bitmap as bits
from services.storage.formats.vhd.create import Parent
from services.storage.formats.vhd.footer import FOOTER_SIZE, SECTOR, DiskType, Footer, check_size
from services.storage.formats.vhd.header import BLOCK_SIZE, HEADER_SIZE, NO_PARENT, Header
from services.storage.formats.zeros import zeros

_BAT_AT: Final = 2048
_BITMAP: Final = b"\xff" * (BLOCK_SIZE // SECTOR // 8)
_NO_BATMAP: Final = 0x0001_0001
"""Version of blktap's tools before they wrote batmaps."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stream is going to hold; `length` is its exact number of bytes."""

    coverage: Coverage
    uuid: uuids.UUID
    parent: Parent | None = None

    @property
    def disk_size(self) -> int:
        """In whole sectors."""
        return -(-self.coverage.size // SECTOR) * SECTOR

    @property
    def entries(self) -> int:
        return -(-self.coverage.size // BLOCK_SIZE)

    @property
    def data_at(self) -> int:
        return _BAT_AT + bits.bat_size(self.entries)

    @property
    def length(self) -> int:
        return self.data_at + self.coverage.count() * (len(_BITMAP) + BLOCK_SIZE) + FOOTER_SIZE


async def plan_full(source: Source, uuid: uuids.UUID | None = None) -> Plan:
    """A dynamic disk of all blocks that are not known to be zeros. Raises `FormatError` for disks over 2040 GiB."""
    check_size(-(-source.size // SECTOR) * SECTOR)
    return Plan(await units_with_data(source, BLOCK_SIZE), uuid or uuids.uuid4())


async def plan_delta(
    source: Source, changed: Iterable[tuple[int, int]], parent: Parent, uuid: uuids.UUID | None = None
) -> Plan:
    """A differencing disk of all blocks that a range (offset, length) touches. Raises `FormatError`, as `plan_full`."""
    check_size(-(-source.size // SECTOR) * SECTOR)
    return Plan(await units_changed(source, BLOCK_SIZE, changed), uuid or uuids.uuid4(), parent)


async def write_vhd(source: Source, output: Output, plan: Plan) -> None:
    """Exactly `plan.length` bytes. The disk must be the one of the plan, and must not change in between."""
    footer = Footer(
        type=DiskType.DYNAMIC if plan.parent is None else DiskType.DIFFERENCING,
        size=plan.disk_size,
        uuid=plan.uuid,
        data_offset=FOOTER_SIZE,
        original_size=plan.disk_size,
        creator_version=_NO_BATMAP,
    ).pack()
    parent = plan.parent or Parent(NO_PARENT, "")
    header = Header(
        bat_offset=_BAT_AT,
        entries=plan.entries,
        parent_uuid=parent.uuid,
        parent_mtime=parent.mtime,
        parent_name=os.path.basename(parent.path),
    ).pack()
    await output.write(footer + header + zeros(_BAT_AT - FOOTER_SIZE - HEADER_SIZE))
    bat = bits.pack_bat(_bat(plan))
    for at in range(0, len(bat), PIECE):
        await output.write(bat[at : at + PIECE])
    end = 0
    async with aclosing(read_ahead(source, plan.coverage.extents())) as pieces:
        async for piece in pieces:
            data = piece.data
            for at in range(piece.offset, piece.offset + piece.length, PIECE):
                if at % BLOCK_SIZE == 0:
                    await output.write(_BITMAP)
                await output.write(zeros(min(PIECE, piece.offset + piece.length - at)) if data is None else data)
            end = piece.offset + piece.length
    for at in range(0, -end % BLOCK_SIZE, PIECE):
        await output.write(zeros(min(PIECE, -end % BLOCK_SIZE - at)))
    await output.write(footer)


def _bat(plan: Plan) -> array[int]:
    bat = bits.empty_bat(plan.entries)
    step = (len(_BITMAP) + BLOCK_SIZE) // SECTOR
    sector = plan.data_at // SECTOR
    for begin, end, _ in plan.coverage.runs():
        bat[begin:end] = array("I", range(sector, sector + (end - begin) * step, step))
        sector += (end - begin) * step
    return bat
