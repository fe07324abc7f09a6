"""qcow2 streams into disks, forward only: clusters come in any order, as long as tables come before what they name.

That is how qemu-img convert and exports write them. What a guest has made of an image over time may not be so; such an
image is refused where it turns out, and converting it puts it in order. What no table has named yet when it comes
(refcounts, leaked clusters, snapshots' own) is skipped; the first of it is kept for a while, since QEMU puts tables
where its refcounts have been.
"""

from __future__ import annotations

import heapq
import sys
import zlib
from array import array
from collections.abc import Iterator
from typing import Final

from services.storage.formats.forward import Forward
from services.storage.formats.interface import PIECE, FormatError, Input, Sink, Truncated
from services.storage.formats.qcow2.header import (
    COMPRESSED,
    HEADER_V3,
    OFFSET,
    ZERO,
    Header,
    parse_header,
)
from services.storage.formats.writing import Target

MAX_PENDING: Final = 4 << 20
"""Runs of clusters that may be known and not have come yet: some 200 MiB of memory."""
KEPT: Final = 8 << 20
"""Bytes of skipped clusters that are kept."""
_FORM: Final = "qcow2"
_SECTOR: Final = 512

# What is to come, in one number each, so that a heap of millions is small: where in the stream, which cluster of the
# disk (or which L1 entry), how many clusters (0: an L2 table; else, if compressed, sectors), and whether compressed.
_WHERE, _GUEST, _COUNT = 128, 64, 1


async def read_qcow2(stream: Input, sink: Sink, zero_absent: bool = False, differences: bool = False) -> int:
    """Decodes a stream and returns the disk's size in bytes. What was written is durable then.

    `zero_absent`: makes zeros of what the image does not have, for a sink that may hold something. `differences`: the
    sink holds what the image stands on, so it may name a backing file. Raises `FormatError`, `Truncated`, and what the
    sink raises.
    """
    source = Forward(stream, _FORM)
    header = parse_header(await source.read(HEADER_V3, "the header"))
    if header.backing and not differences:
        raise FormatError("qcow2 header: the image needs a backing file, whose content is not in the stream")
    async with Target(sink, _FORM) as target:
        await _Reader(source, target, header, zero_absent).run()
        await target.finish()
    return header.size


class _Reader:
    def __init__(self, source: Forward, target: Target, header: Header, zero_absent: bool) -> None:
        self._source = source
        self._target = target
        self._header = header
        self._zero_absent = zero_absent
        self._pending: list[int] = []
        self._skipped: dict[int, bytes] = {}
        self._tail = (0, b"")
        """Position and content of a cluster's rest behind compressed data (its last sector included), as far as it was
        read: the next may begin there, even if a table that comes later names it."""

    async def run(self) -> None:
        await self._read_l1()
        while self._pending:
            item = heapq.heappop(self._pending)
            where = item >> _WHERE
            guest = item >> _GUEST & (1 << _WHERE - _GUEST) - 1
            count = item >> _COUNT & (1 << _GUEST - _COUNT) - 1
            if not count:
                await self._read_l2(where, guest)
            elif item & 1:
                await self._read_compressed(where, guest, count)
            else:
                await self._read_data(where, guest, count)
        if self._zero_absent:
            await self._target.zero(self._header.size, self._target.size - self._header.size)

    def _push(self, where: int, guest: int, count: int = 0, compressed: bool = False) -> None:
        if len(self._pending) >= MAX_PENDING:
            raise FormatError("qcow2: the clusters are too scattered to be read from a stream; convert the image first")
        heapq.heappush(self._pending, where << _WHERE | guest << _GUEST | count << _COUNT | compressed)

    async def _read_l1(self) -> None:
        header = self._header
        span = header.l2_entries * header.cluster_size
        entries = -(-header.size // span)
        if not entries:
            return
        await self._skip_to(header.l1_offset, "the L1 table")
        table = _parse(await self._source.read_long(entries * 8, "the L1 table"))
        for index, entry in enumerate(table):
            where = entry & OFFSET
            if where:
                if where % header.cluster_size:
                    raise FormatError(f"qcow2: L1 entry {index} is {entry:#x}, which is no cluster")
                self._push(where, index)
            elif self._zero_absent:
                await self._zero(index * header.l2_entries, header.l2_entries)

    async def _read_l2(self, where: int, index: int) -> None:
        header = self._header
        what = f"L2 table {index}"
        data = self._skipped.get(where)
        if data is None:
            await self._skip_to(where, what)
            data = await self._source.read_long(header.cluster_size, what)
        table = _parse(data)
        first = index * header.l2_entries
        table = table[: -(-header.size // header.cluster_size) - first]
        for begin, end, entry in _entry_runs(table, header.cluster_size):
            host = entry & OFFSET
            if entry & COMPRESSED:
                bits = 62 - (header.cluster_bits - 8)
                sectors = (entry >> bits & (1 << header.cluster_bits - 8) - 1) + 1
                self._push(entry & (1 << bits) - 1, first + begin, sectors, compressed=True)
            elif entry & ZERO:
                await self._zero(first + begin, end - begin)
            elif host:
                if host % header.cluster_size:
                    raise FormatError(f"qcow2: entry {begin} of {what} is {entry:#x}, which is no cluster")
                self._push(host, first + begin, end - begin)
            elif self._zero_absent:
                await self._zero(first + begin, end - begin)

    async def _zero(self, cluster: int, count: int) -> None:
        size = self._header.cluster_size
        offset = cluster * size
        await self._target.zero(offset, min(count * size, self._header.size - offset))

    async def _read_data(self, where: int, cluster: int, count: int) -> None:
        """A run of clusters."""
        size = self._header.cluster_size
        what = f"the data of clusters {cluster} to {cluster + count - 1}"
        offset = cluster * size
        length = min(count * size, self._header.size - offset)
        kept = 0
        while kept < length and (cluster_data := self._skipped.get(where + kept)) is not None:
            await self._write(offset + kept, cluster_data)
            kept += size
        if kept < length:
            await self._skip_to(where + kept, what)
        for at in range(kept, length, PIECE):
            await self._target.write(offset + at, await self._source.read_data(min(PIECE, length - at), what))

    async def _read_compressed(self, where: int, cluster: int, sectors: int) -> None:
        """Deflated without a header; it ends somewhere in its last sector, where the next one may begin."""
        what = f"compressed cluster {cluster}"
        begin, length = where - where % _SECTOR, sectors * _SECTOR
        tail_at, tail = self._tail
        held = tail[begin - tail_at :] if tail_at <= begin < tail_at + len(tail) else b""
        if len(held) < length:
            await self._skip_to(begin + len(held), what)
            held += await self._source.read_up_to(length - len(held))
        data = held[:length]
        last = max(0, len(data) - 1) // _SECTOR * _SECTOR
        self._tail = (begin + last, held[last:])
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            cluster_data = inflate.decompress(data[where - begin :], self._header.cluster_size)
        except zlib.error as error:
            raise FormatError(f"qcow2: {what} at {where} cannot be decompressed: {error}") from error
        if len(cluster_data) < self._header.cluster_size:
            if len(data) < length:
                raise Truncated(f"qcow2: the stream ends at {self._source.position}, in {what}")
            raise FormatError(f"qcow2: {what} at {where} has {len(cluster_data)} bytes")
        offset = cluster * self._header.cluster_size
        await self._write(offset, cluster_data)

    async def _write(self, offset: int, data: bytes) -> None:
        """A cluster, up to the end of the disk."""
        data = data[: self._header.size - offset]
        for at in range(0, len(data), PIECE):
            await self._target.write(offset + at, data[at : at + PIECE])

    async def _skip_to(self, where: int, what: str) -> None:
        """Keeps a compressed cluster's tail, and whole clusters while there is room."""
        size = self._header.cluster_size
        at = self._source.position
        tail_at, tail = self._tail
        if at % size and at == tail_at + len(tail) and at < where:
            gap = await self._source.read_long(min(size - at % size, where - at), f"the gap before {what}")
            self._tail = (tail_at, tail + gap)
        while (at := self._source.position) < where and len(self._skipped) * size < KEPT:
            length = min(size - at % size, where - at)
            data = await self._source.read_long(length, f"the gap before {what}")
            if length == size:
                self._skipped[at] = data
        await self._source.skip_to(where, what)


def _parse(data: bytes) -> array[int]:
    table = array("Q", data)
    if sys.byteorder == "little":
        table.byteswap()
    return table


def _entry_runs(table: array[int], cluster_size: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first entry) of entries that are the same kind of nothing, or name clusters in a row."""
    begin = 0
    while begin < len(table):
        entry = table[begin]
        end = begin + 1
        if not entry & COMPRESSED:
            step = cluster_size if entry & OFFSET and not entry & ZERO else 0
            expected = entry + step
            while end < len(table) and table[end] == expected:
                end += 1
                expected += step
        yield begin, end, entry
        begin = end
