"""New VHD image files: laid out as blktap's tools do, with a batmap; the footer's copy at 0 is written last.

Until that copy is there, with the one at the end, nobody takes the file for an image.
"""

from __future__ import annotations

import errno
import os
import uuid as uuids
from dataclasses import dataclass, replace
from typing import Final

from services.storage.formats.interface import PIECE
from services.storage.formats.vhd import bitmap as bits
from services.storage.formats.vhd.files import ImageFile
from services.storage.formats.vhd.footer import (
    FOOTER_SIZE,
    NOWHERE,
    SECTOR,
    DiskType,
    Footer,
    check_size,
    now,
)
from services.storage.formats.vhd.header import (
    ABSOLUTE,
    BLOCK_SIZE,
    HEADER_SIZE,
    MAC_URL,
    RELATIVE,
    Header,
    Locator,
    encode_path,
)
from services.storage.formats.vhd.image import Image
from services.storage.formats.zeros import zeros

LOCATOR_CODES: Final = (MAC_URL, ABSOLUTE, RELATIVE)
"""The order in which blktap's tools write them; all hold the path relative to the child."""


@dataclass(frozen=True, slots=True)
class Parent:
    """`uuid`: all zeros for a raw parent. `path`: relative to the child's folder. `mtime`: seconds since 2000."""

    uuid: uuids.UUID
    path: str
    mtime: int = 0

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


def create_fixed(file: ImageFile, size: int, uuid: uuids.UUID | None = None) -> Image:
    """All zeros, as the file is new (a block device is overwritten). Bytes; returns the image, open for writing."""
    check_size(size)
    footer = _footer(DiskType.FIXED, size, uuid, NOWHERE)
    _check_room(file, size + FOOTER_SIZE)
    if file.fixed_size:
        for at in range(0, size, PIECE):
            file.pwrite(at, zeros(min(PIECE, size - at)))
        file.pwrite(file.size() - FOOTER_SIZE, footer.pack())
    else:
        file.truncate(size + FOOTER_SIZE)
        file.pwrite(size, footer.pack())
    file.flush()
    return Image.open(file, writable=True)


def create_dynamic(file: ImageFile, size: int, uuid: uuids.UUID | None = None, max_size: int = 0) -> Image:
    """`max_size`: bytes that the disk can grow to later without moving its table."""
    return _create(file, _footer(DiskType.DYNAMIC, size, uuid, FOOTER_SIZE), None, max_size)


def create_differencing(
    file: ImageFile, size: int, parent: Parent, uuid: uuids.UUID | None = None, max_size: int = 0
) -> Image:
    """`size`: at least the parent's; what lies behind the parent's end is zeros."""
    return _create(file, _footer(DiskType.DIFFERENCING, size, uuid, FOOTER_SIZE), parent, max_size)


def locators(parent: Parent, at: int) -> tuple[tuple[Locator, ...], bytes]:
    """Locators of a parent whose data is to be put at a position, and that data, whole sectors."""
    found, data = [], b""
    for code in LOCATOR_CODES:
        path = encode_path(code, parent.path)
        room = -(-len(path) // SECTOR) * SECTOR
        found.append(Locator(code, room, len(path), at + len(data)))
        data += path.ljust(room, b"\0")
    return tuple(found), data


def _footer(type_: DiskType, size: int, uuid: uuids.UUID | None, data_offset: int) -> Footer:
    check_size(size)
    return Footer(
        type=type_,
        size=size,
        uuid=uuid or uuids.uuid4(),
        data_offset=data_offset,
        original_size=size,
        timestamp=now(),
    )


def _create(file: ImageFile, footer: Footer, parent: Parent | None, max_size: int) -> Image:
    entries = -(-max(footer.size, max_size) // BLOCK_SIZE)
    header = Header(bat_offset=FOOTER_SIZE + HEADER_SIZE, entries=entries)
    bat_end = header.bat_offset + bits.bat_size(entries)
    batmap = bytes(-(-entries // 8 // SECTOR) * SECTOR)
    batmap_header = bits.BatmapHeader(bat_end + bits.BATMAP_HEADER_SIZE, len(batmap) // SECTOR)
    end = batmap_header.offset + len(batmap)
    parts = [
        (header.bat_offset, bits.pack_bat(bits.empty_bat(entries))),
        (bat_end, batmap_header.pack(batmap)),
        (batmap_header.offset, batmap),
    ]
    if parent is not None:
        found, data = locators(parent, end)
        header = replace(
            header,
            parent_uuid=parent.uuid,
            parent_mtime=parent.mtime,
            parent_name=parent.name,
            locators=found,
        )
        parts.append((end, data))
        end += len(data)
    parts.append((FOOTER_SIZE, header.pack()))
    _check_room(file, end + FOOTER_SIZE)
    if file.fixed_size:
        file.pwrite(0, bytes(FOOTER_SIZE))
        tail = file.size() - FOOTER_SIZE
    else:
        file.truncate(0)
        tail = end
    for at, data in parts:
        file.pwrite(at, data)
    file.flush()
    file.pwrite(tail, footer.pack())
    file.pwrite(0, footer.pack())
    file.flush()
    return Image.open(file, writable=True)


def _check_room(file: ImageFile, size: int) -> None:
    if file.fixed_size and file.size() < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
