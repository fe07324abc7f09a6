"""vhd-util read -p: the structures of a VHD for people, and the lines in it that drivers look for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from services.storage.formats.vhd.chain import parent_paths
from services.storage.formats.vhd.footer import DiskType, Footer, geometry
from services.storage.formats.vhd.header import Header
from services.storage.formats.vhd.image import Image

_EPOCH: Final = 946_684_800
_TYPES: Final = {
    DiskType.FIXED: "Fixed hard disk",
    DiskType.DYNAMIC: "Dynamic hard disk",
    DiskType.DIFFERENCING: "Differencing hard disk",
}
_MIB: Final = 1 << 20


def of(image: Image, hexadecimal: bool = False) -> str:
    lines = [*_section("VHD Footer Summary", _footer(image.footer, hexadecimal))]
    if not image.fixed:
        lines += _section("VHD Header Summary", _header(image.header, hexadecimal))
        if image.type is DiskType.DIFFERENCING:
            lines += _locators(image, hexadecimal)
        if image.batmap_header is not None:
            lines += _section("VHD Batmap Summary", _batmap(image, hexadecimal))
    return "\n".join(lines)


def _section(title: str, fields: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield from (f"{title}:", "-" * (len(title) + 1))
    yield from (f"{name:<20}: {value}" for name, value in fields)
    yield ""


def _number(value: int, hexadecimal: bool) -> str:
    return f"{value:#x}" if hexadecimal else str(value)


def _size(value: int, hexadecimal: bool) -> str:
    return f"{_number(value // _MIB, hexadecimal)} MB ({_number(value, hexadecimal)} Bytes)"


def _time(seconds: int) -> str:
    return time.asctime(time.localtime(seconds + _EPOCH))


def _footer(footer: Footer, hexadecimal: bool) -> Iterator[tuple[str, str]]:
    chs = footer.chs or geometry(footer.size)
    yield "Cookie", "conectix"
    yield "Data offset", _number(footer.data_offset, hexadecimal)
    yield "Timestamp", _time(footer.timestamp)
    yield "Creator Application", f"'{footer.creator.decode('ascii', 'replace')[:4].rstrip(chr(0))}'"
    yield "Creator version", f"Major: {footer.creator_version >> 16}, Minor: {footer.creator_version & 0xFFFF}"
    yield "Original disk size", _size(footer.original_size, hexadecimal)
    yield "Current disk size", _size(footer.size, hexadecimal)
    yield "Geometry", f"Cyl: {chs.cylinders}, Hds: {chs.heads}, Sctrs: {chs.sectors}"
    yield "Disk type", _TYPES[footer.type]
    yield "UUID", str(footer.uuid)
    yield "Saved state", "Yes" if footer.saved else "No"
    yield "Hidden", str(int(footer.hidden))


def _header(header: Header, hexadecimal: bool) -> Iterator[tuple[str, str]]:
    yield "Cookie", "cxsparse"
    yield "Table offset", _number(header.bat_offset, hexadecimal)
    yield "Max BAT size", _number(header.entries, hexadecimal)
    block = header.block_size
    yield "Block size", f"{_number(block, hexadecimal)} ({_number(block // _MIB, hexadecimal)} MB)"
    yield "Parent name", header.parent_name
    yield "Parent UUID", str(header.parent_uuid)
    yield "Parent timestamp", _time(header.parent_mtime)


def _locators(image: Image, hexadecimal: bool) -> Iterator[str]:
    names = parent_paths(image)
    yield from ("VHD Parent Locators:", "--------------------")
    for number, locator in enumerate(image.header.locators):
        if locator.used:
            yield f"locator:            : {number}"
            yield f"       code         : PLAT_CODE_{locator.code.decode('ascii', 'replace').upper()}"
            yield f"       data_space   : {_number(locator.space, hexadecimal)}"
            yield f"       data_length  : {_number(locator.length, hexadecimal)}"
            yield f"       data_offset  : {_number(locator.offset, hexadecimal)}"
            yield f"       decoded name : {names.get(locator.code, '')}"
            yield ""


def _batmap(image: Image, hexadecimal: bool) -> Iterator[tuple[str, str]]:
    batmap = image.batmap_header
    assert batmap is not None
    yield "Batmap offset", _number(batmap.offset, hexadecimal)
    yield "Batmap size (secs)", _number(batmap.sectors, hexadecimal)
    yield "Batmap marker", str(batmap.marker)
