"""The little of the qcow2 format that is needed often (docs/interop/qcow2.txt of QEMU): the header, which clusters an
image holds itself, and making an image without any.

Here it takes microseconds; starting qemu-img takes tens of milliseconds.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from shared.bus.contract import Record

_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_INCOMPATIBLE = struct.Struct(">Q")
_CORRUPT = 1 << 1
_EXTENDED_L2 = 1 << 4
_OFFSET = 0x00FF_FFFF_FFFF_FE00
"""The bits of an L1 entry that say where its L2 table is."""
_MAX_L1 = 32 << 20
"""Bytes; QEMU's own limit."""


_CLUSTER_BITS = 16
MAX_SIZE = _MAX_L1 // 8 << 2 * _CLUSTER_BITS - 3
"""Bytes of a disk, with clusters of that size."""
_REFCOUNT_ORDER = 4
_VERSION_3 = struct.Struct(">QQQII")
"""Feature bits (incompatible, compatible, autoclear), the order of refcounts, the header's length."""
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA


class NotQcow2(Exception):
    """The file is not a qcow2 image that can be used; the text says why."""


class Header(Record, frozen=True):
    """`virtual_size`: bytes. `backing`: the backing file's name as written, "" for none."""

    virtual_size: int
    backing: str
    l1_entries: int
    l1_offset: int
    snapshots: int
    cluster_bits: int = 16
    extended_l2: bool = False


def create(path: Path, size: int, backing: str) -> None:
    """A new image without a cluster of its own, as qemu-img makes it. `backing`: a qcow2 image's name, "" for none; it
    is not opened, for a hypervisor may have it.

    Four areas, in order: header, refcount table, one refcount block, L1 table. Raises OSError.
    """
    cluster = 1 << _CLUSTER_BITS
    l1_entries = -(-size // (cluster * cluster // 8))
    l1_clusters = -(-l1_entries * 8 // cluster)
    name = os.fsencode(backing)
    extensions = _EXTENSION.pack(_BACKING_FORMAT, 5) + b"qcow2".ljust(8, b"\0") if backing else b""
    extensions += _EXTENSION.pack(0, 0)
    length = _HEADER.size + _VERSION_3.size
    header = _HEADER.pack(
        _MAGIC,
        3,
        length + len(extensions) if backing else 0,
        len(name),
        _CLUSTER_BITS,
        size,
        0,
        l1_entries,
        3 * cluster,
        cluster,
        1,
        0,
        0,
    ) + _VERSION_3.pack(0, 0, 0, _REFCOUNT_ORDER, length)
    used = 3 + l1_clusters
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.truncate(file, used * cluster)
        os.pwrite(file, struct.pack(">Q", 2 * cluster), cluster)
        os.pwrite(file, struct.pack(">H", 1) * used, 2 * cluster)
        os.pwrite(file, header + extensions + name, 0)
    finally:
        os.close(file)


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
    flags = 0
    if version == 3:
        incompatible = os.pread(file, _INCOMPATIBLE.size, _HEADER.size)
        if len(incompatible) < _INCOMPATIBLE.size:
            raise NotQcow2("its header is cut off")
        [flags] = _INCOMPATIBLE.unpack(incompatible)
        if flags & _CORRUPT:
            raise NotQcow2("it is marked as corrupt; run `qemu-img check -r all` on it")
    length = os.fstat(file).st_size
    if l1 and l1_at + l1 * 8 > length:
        raise NotQcow2(f"it is cut off: {length} bytes")
    backing = os.pread(file, backing_length, backing_at) if backing_at else b""
    return Header(
        virtual_size=size,
        backing=os.fsdecode(backing),
        l1_entries=l1,
        l1_offset=l1_at,
        snapshots=snapshots,
        cluster_bits=cluster_bits,
        extended_l2=bool(flags & _EXTENDED_L2),
    )


def is_blank(path: Path, header: Header) -> bool:
    """True when the image holds no cluster of its own: its content is that of its backing file."""
    if header.snapshots:
        return False
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not any(os.pread(file, header.l1_entries * 8, header.l1_offset))
    finally:
        os.close(file)


def allocated(path: Path, header: Header) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of what the image holds itself, zeros it was told of included, in order.

    Only right while nobody has the image open for writing: writers keep tables in memory.
    """
    cluster, entry = 1 << header.cluster_bits, 16 if header.extended_l2 else 8
    per_table = cluster // entry
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        first = struct.unpack(f">{header.l1_entries}Q", _whole(file, header.l1_entries * 8, header.l1_offset))
        begin = end = 0
        for number, l1_entry in enumerate(first):
            at = l1_entry & _OFFSET
            if not at:
                continue
            table = _whole(file, cluster, at)
            if not any(table):
                continue
            words = struct.unpack(f">{per_table * entry // 8}Q", table)
            held = map(any, zip(words[::2], words[1::2], strict=True)) if header.extended_l2 else map(bool, words)
            for index, is_held in enumerate(held):
                if not is_held:
                    continue
                offset = (number * per_table + index) * cluster
                if offset == end and end > begin:
                    end += cluster
                    continue
                if end > begin:
                    yield begin, min(end, header.virtual_size) - begin
                begin, end = offset, offset + cluster
        if end > begin:
            yield begin, min(end, header.virtual_size) - begin
    finally:
        os.close(file)


def _whole(file: int, length: int, offset: int) -> bytes:
    data = os.pread(file, length, offset)
    if len(data) < length:
        raise NotQcow2(f"its tables are cut off at {offset + len(data)}")
    return data
