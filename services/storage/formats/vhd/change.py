"""Changes to VHD images that are there: size, parent, hidden flag. Each ends in one write of a footer or header."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from services.storage.formats.interface import FormatError
from services.storage.formats.vhd import bitmap as bits
from services.storage.formats.vhd.create import Parent, locators
from services.storage.formats.vhd.footer import FOOTER_SIZE, SECTOR, DiskType, check_size
from services.storage.formats.vhd.image import Image


def set_hidden(image: Image, hidden: bool) -> None:
    """blktap's mark of nodes that are no disks of their own."""
    image.put_footer(replace(image.footer, hidden=hidden))
    image.flush()


def resize(image: Image, size: int) -> None:
    """Grows the disk (bytes); what is new reads as zeros. Raises `FormatError` for less than it has."""
    check_size(size)
    if size < image.size:
        raise FormatError(f"a VHD of {image.size} bytes cannot shrink to {size}")
    with image.lock:
        if image.type is DiskType.FIXED:
            _resize_fixed(image, size)
            return
        if size > image.max_size:
            _move_bat(image, size)
        image.put_footer(image.footer.resized(size))
        image.flush()


def _resize_fixed(image: Image, size: int) -> None:
    if size == image.size:
        return
    file, old = image.file, image.size
    if file.fixed_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file.truncate(size + FOOTER_SIZE)
    image.put_footer(image.footer.resized(size))
    file.flush()
    file.pwrite(old, bytes(min(FOOTER_SIZE, size - old)))
    image.flush()


def _move_bat(image: Image, size: int) -> None:
    """A larger table (and batmap) where there is room; the header then names it. The old ones' room becomes a gap."""
    header = image.header
    entries = -(-size // header.block_size)
    bat = image.bat()
    bat.extend(bits.empty_bat(entries - len(bat)))
    packed = bits.pack_bat(bat)
    old = image.batmap()
    batmap = b"" if old is None else old.ljust(-(-entries // 8 // SECTOR) * SECTOR, b"\0")
    # A batmap that is not used takes room too: who looks behind the table must not find old data there.
    at = image.find_room(len(packed) + bits.BATMAP_HEADER_SIZE + len(batmap))
    batmap_header = bytes(bits.BATMAP_HEADER_SIZE)
    if old is not None:
        map_at = at + len(packed) + bits.BATMAP_HEADER_SIZE
        marker = image.batmap_header.marker if image.batmap_header else 0
        batmap_header = bits.BatmapHeader(map_at, len(batmap) // SECTOR, marker).pack(batmap)
    image.file.pwrite(at, packed + batmap_header + batmap)
    image.file.flush()
    image.put_header(replace(header, bat_offset=at, entries=entries))
    image.file.flush()


def set_parent(image: Image, parent: Parent) -> None:
    """Puts another parent behind a differencing disk, whose blocks stay. Raises `FormatError` for other disks."""
    if image.type is not DiskType.DIFFERENCING:
        raise FormatError(f"a {image.type.name.lower()} VHD has no parent")
    with image.lock:
        _, data = locators(parent, 0)
        at = image.find_room(len(data))
        found, data = locators(parent, at)
        image.file.pwrite(at, data)
        image.file.flush()
        image.put_header(
            replace(
                image.header,
                parent_uuid=parent.uuid,
                parent_mtime=parent.mtime,
                parent_name=parent.name,
                locators=found,
            )
        )
        image.flush()


def forget_data(image: Image) -> None:
    """Makes all blocks absent, for disks of which only what they were changed in is of interest from now on."""
    image.forget_blocks()
    image.flush()
