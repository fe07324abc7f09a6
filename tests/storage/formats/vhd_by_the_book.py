"""A reader of VHD chains straight from the specification, sharing nothing with the code under test: slow and plain."""

from __future__ import annotations

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


def _relative_parent(raw: bytes, header: bytes) -> str:
    for number in range(8):
        code, space, length, _, at = struct.unpack(">4sIIIQ", header[576 + 24 * number : 600 + 24 * number])
        if code == b"W2ru":
            assert length <= space
            text: str = raw[at : at + length].decode("utf-16-le")
            return text.replace("\\", "/")
    raise AssertionError("no relative locator")


def _check(data: bytes, at: int) -> None:
    total = sum(data[:at]) + sum(data[at + 4 :])
    assert struct.unpack(">I", data[at : at + 4])[0] == ~total & 0xFFFFFFFF, "checksum"
