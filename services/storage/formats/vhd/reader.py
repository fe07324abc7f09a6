"""VHD streams into disks: dynamic and differencing ones block by block in the file's order, fixed ones as they come.

Only what the stream says is present is written. Nothing of the stream is gone back to; gaps are skipped.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import Final

from services.storage.formats.forward import Forward
from services.storage.formats.interface import PIECE, FormatError, Input, Sink, Truncated
from services.storage.formats.vhd import bitmap as bits
from services.storage.formats.vhd.footer import FOOTER_SIZE, SECTOR, DiskType, Footer, looks_like_footer, parse_footer
from services.storage.formats.vhd.header import HEADER_SIZE, Header, parse_header
from services.storage.formats.writing import Target

_FORM: Final = "VHD"


async def read_vhd(stream: Input, sink: Sink, zero_absent: bool = False) -> Footer:
    """Decodes a stream and returns its footer; nothing behind that is read. What was written is durable then.

    `zero_absent`: makes zeros of what a full disk's stream does not have, for a sink that may hold something; what is
    absent in a differencing disk is its parent's, and stays. A disk larger than the sink is taken as long as it has
    nothing but zeros there. Raises `FormatError`, `Truncated`, and what the sink raises.
    """
    source = Forward(stream, _FORM)
    async with Target(sink, _FORM) as target:
        first = await source.read(FOOTER_SIZE, "the footer's copy")
        if looks_like_footer(first):
            footer = parse_footer(first, "at 0")
            if footer.type is DiskType.FIXED:
                raise FormatError("VHD footer at 0: says a fixed disk, which ends with its footer")
            await _read_blocks(source, target, footer, zero_absent and footer.type is DiskType.DYNAMIC)
            last = await _find_footer(source)
            if last.uuid != footer.uuid or last.size != footer.size:
                raise FormatError("VHD: the footer at the end is of another disk than its copy at 0")
        else:
            footer = await _read_fixed(source, target, first, zero_absent)
        await target.finish()
    return footer


async def _read_fixed(source: Forward, target: Target, first: bytes, zero_absent: bool) -> Footer:
    """The last sector is held back: it is the footer."""
    held, offset = first, 0
    while data := await source.read_up_to(PIECE):
        held += data
        keep = len(held) - FOOTER_SIZE
        if keep > 0:
            await target.write(offset, held[:keep])
            offset += keep
            held = held[keep:]
    try:
        footer = parse_footer(held, f"at {offset}")
    except FormatError as error:
        raise FormatError(f"neither a dynamic VHD nor a fixed one: no footer at 0, and {error}") from error
    if footer.type is not DiskType.FIXED or footer.size != offset:
        raise FormatError(f"VHD footer at {offset}: not of a fixed disk of so many bytes, but of {footer.size}")
    if zero_absent:
        await target.zero(offset, target.size - offset)
    return footer


async def _read_blocks(source: Forward, target: Target, footer: Footer, zero_absent: bool) -> None:
    await source.skip_to(footer.data_offset, "the header")
    header = parse_header(await source.read(HEADER_SIZE, "the header"), footer.data_offset)
    blocks = -(-footer.size // header.block_size)
    if blocks > header.entries:
        raise FormatError(f"VHD of {footer.size} bytes with a table of {header.entries} blocks of {header.block_size}")
    await source.skip_to(header.bat_offset, "the block allocation table")
    table = await source.read_long(blocks * 4, "the block allocation table")
    bat = bits.parse_bat(table, blocks)
    await source.skip_to(header.bat_offset + header.entries * 4, "the end of the block allocation table")
    if zero_absent:
        await _zero_absent_blocks(target, bat, header.block_size, footer.size)
        await target.zero(footer.size, target.size - footer.size)
    for block in _by_position(bat):
        at = bat[block] * SECTOR
        await source.skip_to(at, f"block {block}")
        await _read_block(source, target, header, block, footer.size, zero_absent)


def _by_position(bat: array[int]) -> list[int]:
    """Indices of the blocks in the file, in its order."""
    blocks = [block for block, sector in enumerate(bat) if sector != bits.UNUSED]
    if any(bat[one] > bat[two] for one, two in pairwise(blocks)):
        blocks.sort(key=bat.__getitem__)
    return blocks


async def _read_block(
    source: Forward, target: Target, header: Header, block: int, size: int, zero_absent: bool
) -> None:
    what = f"block {block}"
    bitmap = await source.read(header.bitmap_size, f"the bitmap of {what}")
    offset = block * header.block_size
    for at in range(0, header.block_size, PIECE):
        length = min(PIECE, header.block_size - at)
        data = await source.read_data(length, what)
        inside = min(length, size - offset - at)  # what a last block has behind the disk's end is nothing
        if inside <= 0:
            continue
        for run in bits.runs(bitmap, at // SECTOR, (at + inside) // SECTOR):
            begin, end = run.begin * SECTOR, run.end * SECTOR
            if run.present:
                part = data if end - begin == length else memoryview(data)[begin - at : end - at]
                await target.write(offset + begin, part)
            elif zero_absent:
                await target.zero(offset + begin, end - begin)


async def _zero_absent_blocks(target: Target, bat: array[int], block_size: int, size: int) -> None:
    begin = None
    for block, sector in enumerate(bat):
        if sector == bits.UNUSED:
            begin = block if begin is None else begin
        elif begin is not None:
            await target.zero(begin * block_size, (block - begin) * block_size)
            begin = None
    if begin is not None:
        await target.zero(begin * block_size, size - begin * block_size)


async def _find_footer(source: Forward) -> Footer:
    """The next sector, unless there is something else before."""
    await source.skip_to(-(-source.position // SECTOR) * SECTOR, "the footer")
    while True:
        at = source.position
        data = await source.read_up_to(FOOTER_SIZE)
        if len(data) < FOOTER_SIZE:
            raise Truncated(f"VHD: the stream ends at {at + len(data)} without a footer")
        if looks_like_footer(data):
            return parse_footer(data, f"at {at}")
