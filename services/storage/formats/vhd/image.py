"""One VHD image file by position: fixed, dynamic, or the differing part of a chain (`chain.py` reads through parents).

Blocking, and safe from any thread; one `Image` at a time may have a file open for writing.

What a crash leaves is a sound image. A block is allocated behind everything that is referenced, with a new footer
behind it; its data and bitmap are written, and last its BAT entry, which is what makes it exist. The footer's copy at 0
is the one that counts; the one at the end follows it and is made again when an image is opened for writing. A batmap
may lag behind the bitmaps, never be ahead of them; one with a wrong checksum is not used.
"""

from __future__ import annotations

import errno
import os
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from services.storage.formats.interface import PIECE, FormatError, Truncated
from services.storage.formats.vhd import bitmap as bits
from services.storage.formats.vhd.files import ImageFile, find_footer, read_exactly
from services.storage.formats.vhd.footer import FOOTER_SIZE, SECTOR, DiskType, Footer
from services.storage.formats.vhd.header import HEADER_SIZE, Header, parse_header
from services.storage.formats.zeros import zeros

_CACHED_BITMAPS: Final = 2048
_PAGE: Final = 4096
_BATMAP_SINCE: Final = 0x0001_0002


class Span(NamedTuple):
    """A part of the disk. `position`: where in the file its bytes are, None if the image does not have them."""

    offset: int
    length: int
    position: int | None


class Image:
    """Of any type; what is said of blocks is for dynamic and differencing disks only."""

    def __init__(self, file: ImageFile, footer: Footer, writable: bool) -> None:
        """Use `Image.open`."""
        self.file = file
        self.footer = footer
        self.writable = writable
        self.lock = threading.RLock()
        self._header: Header | None = None
        self._bat: array[int] = array("I")
        self._batmap: bytearray | None = None
        self._batmap_header: bits.BatmapHeader | None = None
        self._batmap_changed = False
        self._bitmaps: OrderedDict[int, bytes] = OrderedDict()
        self._end = 0

    @classmethod
    def open(cls, file: ImageFile, writable: bool = False) -> Image:
        """Raises `FormatError`. A tail that is damaged is made again if `writable`."""
        image = cls(file, find_footer(file), writable)
        if image.footer.type is not DiskType.FIXED:
            image._load()
            if writable:
                image._repair_tail()
        elif image.footer.size + FOOTER_SIZE > file.size():
            raise Truncated(f"fixed VHD of {image.footer.size} bytes in a file of {file.size()}")
        return image

    @property
    def size(self) -> int:
        return self.footer.size

    @property
    def type(self) -> DiskType:
        return self.footer.type

    @property
    def fixed(self) -> bool:
        return self._header is None

    @property
    def header(self) -> Header:
        """Raises `FormatError` for a fixed disk."""
        if self._header is None:
            raise FormatError("a fixed VHD has no header")
        return self._header

    @property
    def block_size(self) -> int:
        return self.header.block_size

    @property
    def blocks(self) -> int:
        """How many blocks the disk's size makes; the BAT may have more."""
        return -(-self.size // self.block_size)

    @property
    def max_size(self) -> int:
        """Bytes that the disk can grow to without moving its BAT."""
        return self.size if self._header is None else self._header.entries * self._header.block_size

    @property
    def end(self) -> int:
        """Bytes of the file that are referenced, without the footer at the end."""
        return self.size if self._header is None else self._end

    @property
    def batmap_header(self) -> bits.BatmapHeader | None:
        return self._batmap_header

    def allocated(self) -> Iterator[int]:
        """Indices of the blocks that are in the file, in order."""
        unused = bits.UNUSED
        return (block for block, sector in enumerate(self._bat[: self.blocks]) if sector != unused)

    def block_at(self, block: int) -> int | None:
        """Position in the file of a block's bitmap."""
        sector = self._bat[block]
        return None if sector == bits.UNUSED else sector * SECTOR

    # Reading

    def spans(self, offset: int, length: int) -> list[Span]:
        """Of a range of whole sectors within the disk, in order and without gaps."""
        self._check_range(offset, length)
        if self._header is None:
            return [Span(offset, length, offset)]
        spans: list[Span] = []
        with self.lock:
            for block, begin, end in _by_block(offset, length, self._header.block_size):
                spans.extend(self._block_spans(block, begin, end))
        return spans

    def _block_spans(self, block: int, begin: int, end: int) -> Iterator[Span]:
        at = self.block_at(block)
        start = block * self.block_size
        if at is None:
            yield Span(start + begin, end - begin, None)
            return
        data = at + self.header.bitmap_size
        if self._known_full(block):
            yield Span(start + begin, end - begin, data + begin)
            return
        for run in bits.runs(self.bitmap(block), begin // SECTOR, end // SECTOR):
            at = run.begin * SECTOR
            yield Span(start + at, (run.end - run.begin) * SECTOR, data + at if run.present else None)

    def bitmap(self, block: int) -> bytes:
        """Of a block that is in the file."""
        with self.lock:
            if (cached := self._bitmaps.get(block)) is not None:
                self._bitmaps.move_to_end(block)
                return cached
            at = self.block_at(block)
            if at is None:
                return zeros(self.header.bitmap_size)
            data = read_exactly(self.file, at, self.header.bitmap_size, f"bitmap of block {block}")
            self._cache(block, data)
            return data

    def _cache(self, block: int, bitmap: bytes) -> None:
        self._bitmaps[block] = bitmap
        self._bitmaps.move_to_end(block)
        if len(self._bitmaps) > _CACHED_BITMAPS:
            self._bitmaps.popitem(last=False)

    def _known_full(self, block: int) -> bool:
        return self._batmap is not None and bool(self._batmap[block >> 3] & (0x80 >> (block & 7)))

    def read_at(self, position: int, length: int) -> bytes:
        """Bytes of the file, as `spans` has said. Raises `Truncated`."""
        return read_exactly(self.file, position, length, "data")

    # Writing

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Whole sectors. Raises `OSError`, as with ENOSPC."""
        self._check_writable()
        self._check_range(offset, len(data))
        view = memoryview(data)
        with self.lock:
            if self._header is None:
                self.file.pwrite(offset, view)
                return
            at = 0
            for block, begin, end in _by_block(offset, len(data), self._header.block_size):
                self._write_block(block, begin, view[at : at + end - begin])
                at += end - begin

    def zero(self, offset: int, length: int) -> None:
        """Makes whole sectors zeros. A block that is nowhere stays so, unless there may be a parent behind it."""
        self._check_writable()
        self._check_range(offset, length)
        with self.lock:
            for at in range(offset, offset + length, PIECE):
                size = min(PIECE, offset + length - at)
                if self.type is DiskType.DYNAMIC:
                    for block, begin, end in _by_block(at, size, self.block_size):
                        if self.block_at(block) is not None:
                            self._write_block(block, begin, memoryview(zeros(end - begin)))
                else:
                    self.write(at, zeros(size))

    def _write_block(self, block: int, begin: int, data: memoryview) -> None:
        header = self.header
        at = self.block_at(block)
        first, last = begin // SECTOR, (begin + len(data)) // SECTOR
        position = self._reserve() if at is None else at
        self.file.pwrite(position + header.bitmap_size + begin, data)
        if at is None and self._known_full(block):
            self._forget_full(block)
        if not self._known_full(block):
            old = zeros(header.bitmap_size) if at is None else self.bitmap(block)
            new = bits.with_sectors(old, first, last)
            if new != old:
                self.file.pwrite(position, new)
                self._cache(block, new)
            if self._batmap is not None and bits.is_full(new, header.block_size // SECTOR):
                self._batmap[block >> 3] |= 0x80 >> (block & 7)
                self._batmap_changed = True
        if at is None:
            if self.file.fixed_size:
                self.file.flush()
            self._set_bat(block, position // SECTOR)
            self._end = position + header.bitmap_size + header.block_size

    def _forget_full(self, block: int) -> None:
        """What the batmap says of a block that is not in the file must not hold for the one that it becomes."""
        if self._batmap is not None:
            self._batmap[block >> 3] &= ~(0x80 >> (block & 7))
            self._batmap_changed = True
            self._write_batmap()

    def _reserve(self) -> int:
        """Makes room for a block and returns the position of its bitmap; all of it reads as zeros.

        Its data begins at a page, and the footer that is at the end now is not overwritten: until the BAT says
        otherwise, the image is what it was.
        """
        header = self.header
        data = -(-(self._end + FOOTER_SIZE + header.bitmap_size) // _PAGE) * _PAGE
        position = data - header.bitmap_size
        end = data + header.block_size
        if end // SECTOR > bits.UNUSED:
            raise OSError(errno.EFBIG, "a VHD file ends at 2 TiB")
        if self.file.fixed_size:
            if end + FOOTER_SIZE > self.file.size():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            for at in range(position, end, PIECE):
                self.file.pwrite(at, zeros(min(PIECE, end - at)))
        else:
            self._drop_tail()
            self.file.truncate(end + FOOTER_SIZE)
            self.file.pwrite(end, self.footer.pack())
        return position

    def _drop_tail(self) -> None:
        """Cuts off what an interrupted or failed allocation has left behind the last block."""
        if self.file.size() > self._end + FOOTER_SIZE:
            self.file.pwrite(self._end, self.footer.pack())
            self.file.truncate(self._end + FOOTER_SIZE)

    def _set_bat(self, block: int, sector: int) -> None:
        self._bat[block] = sector
        first = block & ~(SECTOR // 4 - 1)
        part = bits.pack_bat(self._bat[first : first + SECTOR // 4])
        self.file.pwrite(self.header.bat_offset + first * 4, part)

    def flush(self) -> None:
        """What was written is durable."""
        with self.lock:
            if self.writable:
                self.file.flush()
                if self._batmap_changed:
                    self._write_batmap()
                    self.file.flush()

    def close(self) -> None:
        """Closes the file. What was written since the last `flush` is as durable as the system makes it."""
        with self.lock:
            try:
                if self._batmap_changed:
                    self.flush()
            finally:
                self.file.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Structures

    def put_footer(self, footer: Footer) -> None:
        """Replaces the footer: the copy at 0 decides, if there is one."""
        self._check_writable()
        with self.lock:
            self.footer = footer
            if self._header is not None:
                self.file.pwrite(0, footer.pack())
                self._repair_tail()
            else:
                self.file.pwrite(self.file.size() - FOOTER_SIZE, footer.pack())

    def put_header(self, header: Header) -> None:
        """Replaces the header, whose BAT and locators must be in the file already."""
        self._check_writable()
        with self.lock:
            self.file.pwrite(self.footer.data_offset, header.pack())
            if header.bat_offset != self.header.bat_offset or header.entries != self.header.entries:
                self._load()
            else:
                self._header = header
                self._end = self._find_end()
            self._repair_tail()

    def put_marker(self, marker: int) -> None:
        """blktap's note in the batmap's header (0 to 255). Raises `FormatError` if there is no batmap."""
        self._check_writable()
        with self.lock:
            if self._batmap_header is None:
                raise FormatError("the VHD has no batmap, and so no marker")
            self._batmap_header = self._batmap_header._replace(marker=marker)
            self._batmap_changed = True
            self._write_batmap()

    def forget_blocks(self) -> None:
        """Makes all blocks absent and gives their room back."""
        self._check_writable()
        with self.lock:
            if self._batmap is not None:
                self._batmap = bytearray(len(self._batmap))
                self._batmap_changed = True
                self._write_batmap()
                self.file.flush()
            self._bat = bits.empty_bat(len(self._bat))
            self.file.pwrite(self.header.bat_offset, bits.pack_bat(self._bat))
            self.file.flush()
            self._bitmaps.clear()
            self._end = self._find_end()
            self._repair_tail()

    def bat(self) -> array[int]:
        """A copy."""
        return self._bat[:]

    def batmap(self) -> bytes | None:
        """A copy, padded to sectors."""
        return None if self._batmap is None else bytes(self._batmap)

    def find_room(self, length: int) -> int:
        """Position of so many bytes that nothing uses: before the blocks if there is a gap, or else at the end."""
        with self.lock:
            at = FOOTER_SIZE
            for begin, end in sorted(self._used()):
                if begin - at >= length:
                    return at
                at = max(at, -(-end // SECTOR) * SECTOR)
            if self.file.fixed_size and at + length + FOOTER_SIZE > self.file.size():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return at

    def _load(self) -> None:
        where = self.footer.data_offset
        header = parse_header(read_exactly(self.file, where, HEADER_SIZE, "header"), where)
        if header.entries * header.block_size < self.footer.size:
            raise FormatError(
                f"VHD of {self.footer.size} bytes with a table of {header.entries} blocks of {header.block_size}"
            )
        file_size = self.file.size()
        if header.bat_offset + header.entries * 4 > file_size:
            raise Truncated(
                f"VHD block allocation table of {header.entries} entries at {header.bat_offset} "
                f"in a file of {file_size} bytes"
            )
        self._header = header
        self._bat = bits.parse_bat(self.file.pread(header.bat_offset, header.entries * 4), header.entries)
        self._bitmaps.clear()
        self._load_batmap()
        self._check_blocks()
        self._end = self._find_end()
        if self._end > file_size and self.writable:
            raise Truncated(f"VHD whose blocks end at {self._end} in a file of {file_size} bytes")

    def _load_batmap(self) -> None:
        self._batmap, self._batmap_header = None, None
        if self.footer.creator != b"tap\0" or self.footer.creator_version < _BATMAP_SINCE:
            return
        at = self.header.bat_offset + bits.bat_size(self.header.entries)
        found = bits.parse_batmap_header(self.file.pread(at, bits.BATMAP_HEADER_SIZE), at)
        if found is None:
            return
        self._batmap_header, summed = found
        data = self.file.pread(self._batmap_header.offset, self._batmap_header.sectors * SECTOR)
        if len(data) * 8 >= self.header.entries and bits.batmap_checksum(data) == summed:
            self._batmap = bytearray(data)

    def _write_batmap(self) -> None:
        if self._batmap_changed and self._batmap is not None and self._batmap_header is not None:
            self.file.pwrite(self._batmap_header.offset, bytes(self._batmap))
            at = self.header.bat_offset + bits.bat_size(self.header.entries)
            self.file.pwrite(at, self._batmap_header.pack(bytes(self._batmap)))
            self._batmap_changed = False

    def _used(self) -> Iterator[tuple[int, int]]:
        """(begin, end) of all structures, and one for all blocks together."""
        header = self.header
        yield from self._structures()
        used = [sector for sector in self._bat if sector != bits.UNUSED]
        if used:
            yield min(used) * SECTOR, max(used) * SECTOR + header.bitmap_size + header.block_size

    def _structures(self) -> Iterator[tuple[int, int]]:
        header = self.header
        yield 0, FOOTER_SIZE
        yield self.footer.data_offset, self.footer.data_offset + HEADER_SIZE
        bat_end = header.bat_offset + bits.bat_size(header.entries)
        yield header.bat_offset, bat_end
        if self._batmap_header is not None:
            yield bat_end, bat_end + bits.BATMAP_HEADER_SIZE
            map_at = self._batmap_header.offset
            yield map_at, map_at + self._batmap_header.sectors * SECTOR
        for locator in header.locators:
            if locator.used:
                yield locator.offset, locator.offset + locator.room

    def _check_blocks(self) -> None:
        """No block may lie in another, or in a structure. Raises `FormatError`."""
        sectors = sorted(sector for sector in self._bat[: self.blocks] if sector != bits.UNUSED)
        length = self.header.bitmap_size + self.header.block_size
        for one, next_ in pairwise(sectors):
            if (next_ - one) * SECTOR < length:
                raise FormatError(f"VHD blocks overlap: one at sector {one}, another at {next_}")
        for begin, end in self._structures():
            at = bisect_right(sectors, (end - 1) // SECTOR) - 1
            if at >= 0 and sectors[at] * SECTOR + length > begin:
                raise FormatError(f"VHD block at sector {sectors[at]} lies in a structure at {begin}")

    def _find_end(self) -> int:
        end = max(end for _, end in self._used())
        return -(-end // SECTOR) * SECTOR

    def _repair_tail(self) -> None:
        """The footer at the end as the one in memory says it."""
        if self.file.fixed_size:
            at = self.file.size() - FOOTER_SIZE
        else:
            self._drop_tail()
            at = self._end
        if self.file.pread(at, FOOTER_SIZE) != (packed := self.footer.pack()):
            self.file.pwrite(at, packed)

    def _check_range(self, offset: int, length: int) -> None:
        if offset % SECTOR or length % SECTOR or offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset} are not sectors of a disk of {self.size} bytes")

    def _check_writable(self) -> None:
        if not self.writable:
            raise OSError(errno.EROFS, "the VHD is open for reading only")


def _by_block(offset: int, length: int, block_size: int) -> Iterator[tuple[int, int, int]]:
    """(block, begin, end) in bytes within each block that a range touches."""
    end = offset + length
    while offset < end:
        block, begin = divmod(offset, block_size)
        until = min(block_size, begin + end - offset)
        yield block, begin, until
        offset += until - begin
