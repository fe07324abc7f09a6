"""A reader and a writer of VHD chains straight from the specification, sharing nothing with the code under test."""

from __future__ import annotations

import random
import struct
from pathlib import Path


def read_disk(path: Path) -> bytes:
    """The whole content of a disk, its parents found by the relative locator."""
    raw = path.read_bytes()
    footer = raw[-512:]
    _check(footer, 64)
    size = struct.unpack(">Q", footer[48:56])[0]
    kind = struct.unpack(">I", footer[60:64])[0]
    if kind == 2:
        assert len(raw) == size + 512
        return raw[:size]
    assert raw[:512] == footer
    at = struct.unpack(">Q", footer[16:24])[0]
    header = raw[at : at + 1024]
    _check(header, 36)
    disk = bytearray(size)
    if kind == 4:
        parent = path.parent / _relative_parent(raw, header)
        parent_raw = parent.read_bytes()
        assert parent_raw[-512:][68:84] == header[40:56], "the parent is another one"
        below = read_disk(parent)
        disk[: len(below)] = below[:size]
    bat_at = struct.unpack(">Q", header[16:24])[0]
    entries, block_size = struct.unpack(">II", header[28:36])
    for block in range(entries):
        sector = struct.unpack(">I", raw[bat_at + block * 4 : bat_at + block * 4 + 4])[0]
        if sector == 0xFFFFFFFF:
            continue
        sectors = block_size // 512
        bitmap_size = (sectors // 8 + 511) // 512 * 512
        bitmap = raw[sector * 512 : sector * 512 + bitmap_size]
        data = sector * 512 + bitmap_size
        assert data + block_size <= len(raw) - 512, "a block lies over the footer"
        for number in range(sectors):
            if bitmap[number // 8] & (0x80 >> number % 8):
                to = block * block_size + number * 512
                if to < size:
                    disk[to : to + 512] = raw[data + number * 512 : data + number * 512 + 512]
    return bytes(disk)


def write_differencing(path: Path, parent: Path, size: int, sectors: dict[int, bytes], mix: random.Random) -> None:
    """A differencing disk with some sectors (512 bytes each) of its own; its blocks lie in a random order."""
    parent_uuid = parent.read_bytes()[-512:][68:84]
    entries = (size + 0x1FFFFF) // 0x200000
    bat_at, bat_size = 2048, (entries * 4 + 511) // 512 * 512
    name = parent.name.encode("utf-16-le")
    locator_at = bat_at + bat_size + 512
    header = bytearray(1024)
    header[0:8] = b"cxsparse"
    struct.pack_into(">QQIII", header, 8, 0xFFFFFFFFFFFFFFFF, bat_at, 0x10000, entries, 0x200000)
    header[40:56] = parent_uuid
    name_be = parent.name.encode("utf-16-be")
    header[64 : 64 + len(name_be)] = name_be
    struct.pack_into(">4sIIIQ", header, 576, b"W2ru", 1, len(name), 0, locator_at)
    struct.pack_into(">I", header, 36, ~sum(header) & 0xFFFFFFFF)
    footer = bytearray(512)
    struct.pack_into(
        ">8sIIQI4sI4sQQ", footer, 0, b"conectix", 2, 0x10000, 512, 1, b"win ", 0x60001, b"Wi2k", size, size
    )
    struct.pack_into(">I", footer, 60, 4)
    footer[68:84] = mix.randbytes(16)
    struct.pack_into(">I", footer, 64, ~sum(footer) & 0xFFFFFFFF)
    blocks = sorted({sector // 4096 for sector in sectors})
    mix.shuffle(blocks)
    bat = bytearray(b"\xff" * bat_size)
    data, at = b"", locator_at + 512
    for block in blocks:
        struct.pack_into(">I", bat, block * 4, at // 512)
        bitmap, content = bytearray(512), bytearray(0x200000)
        for number in range(4096):
            if (sector := sectors.get(block * 4096 + number)) is not None:
                bitmap[number // 8] |= 0x80 >> number % 8
                content[number * 512 : number * 512 + 512] = sector
        data += bitmap + content
        at += 512 + 0x200000
    path.write_bytes(
        bytes(footer + header + bytes(512) + bat + bytes(512)) + name.ljust(512, b"\0") + data + bytes(footer)
    )


def _relative_parent(raw: bytes, header: bytes) -> str:
    for number in range(8):
        code, space, length, _, at = struct.unpack(">4sIIIQ", header[576 + 24 * number : 600 + 24 * number])
        if code == b"W2ru":
            assert length <= (space if space >= 512 else space * 512)
            text: str = raw[at : at + length].decode("utf-16-le")
            return text.replace("\\", "/")
    raise AssertionError("no relative locator")


def _check(data: bytes, at: int) -> None:
    total = sum(data[:at]) + sum(data[at + 4 :])
    assert struct.unpack(">I", data[at : at + 4])[0] == ~total & 0xFFFFFFFF, "checksum"
