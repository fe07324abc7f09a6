"""The little of the qcow2 format that must be read often: the header (docs/interop/qcow2.txt of QEMU).

Reading it here takes microseconds; starting qemu-img takes milliseconds.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from shared.bus.contract import Record

_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_INCOMPATIBLE = struct.Struct(">Q")
_CORRUPT = 1 << 1
_MAX_L1 = 32 << 20
"""Bytes; QEMU's own limit."""


class NotQcow2(Exception):
    """The file is not a qcow2 image that can be used; the text says why."""


class Header(Record, frozen=True):
    """`virtual_size`: bytes. `backing`: the backing file's name as written, "" for none."""

    virtual_size: int
    backing: str
    l1_entries: int
    l1_offset: int
    snapshots: int


def read_header(path: Path) -> Header:
    """Raises `NotQcow2`, FileNotFoundError, OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _parse(file)
    finally:
        os.close(file)


def _parse(file: int) -> Header:
    raw = os.pread(file, _HEADER.size, 0)
    if len(raw) < _HEADER.size:
        raise NotQcow2(f"it ends after {len(raw)} bytes")
    (magic, version, backing_at, backing_length, cluster_bits, size, _crypt, l1, l1_at, _rt, _rc, snapshots, _sn) = (
        _HEADER.unpack(raw)
    )
    if magic != _MAGIC:
        raise NotQcow2("it has no qcow2 header")
    if version not in (2, 3):
        raise NotQcow2(f"version {version} is unknown")
    if not 9 <= cluster_bits <= 21 or l1 * 8 > _MAX_L1 or backing_length > 1023:
        raise NotQcow2("its header makes no sense")
    if version == 3:
        flags = os.pread(file, _INCOMPATIBLE.size, _HEADER.size)
        if len(flags) < _INCOMPATIBLE.size:
            raise NotQcow2("its header is cut off")
        if _INCOMPATIBLE.unpack(flags)[0] & _CORRUPT:
            raise NotQcow2("it is marked as corrupt; run `qemu-img check -r all` on it")
    length = os.fstat(file).st_size
    if l1 and l1_at + l1 * 8 > length:
        raise NotQcow2(f"it is cut off: {length} bytes")
    backing = os.pread(file, backing_length, backing_at) if backing_at else b""
    return Header(virtual_size=size, backing=os.fsdecode(backing), l1_entries=l1, l1_offset=l1_at, snapshots=snapshots)


def is_blank(path: Path, header: Header) -> bool:
    """True when the image holds no cluster of its own: its content is that of its backing file."""
    if header.snapshots:
        return False
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not any(os.pread(file, header.l1_entries * 8, header.l1_offset))
    finally:
        os.close(file)
