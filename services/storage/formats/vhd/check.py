"""Whether a VHD image file is sound."""

from __future__ import annotations

from services.storage.formats.interface import FormatError
from services.storage.formats.vhd import bitmap as bits
from services.storage.formats.vhd.chain import parent_paths
from services.storage.formats.vhd.files import ImageFile
from services.storage.formats.vhd.footer import FOOTER_SIZE, SECTOR, DiskType, parse_footer
from services.storage.formats.vhd.image import Image


def problems(file: ImageFile) -> list[str]:
    """All that is wrong, in words; a sound image has none. Reads every bitmap, no data."""
    try:
        image = Image.open(file)
    except FormatError as error:
        return [str(error)]
    if image.type is DiskType.FIXED:
        return [] if file.fixed_size or image.size + FOOTER_SIZE == file.size() else ["fixed VHD: data behind its end"]
    found: list[str] = []
    tail = file.size() - FOOTER_SIZE
    try:
        if parse_footer(file.pread(tail, FOOTER_SIZE), f"at {tail}") != image.footer:
            found.append(f"the footers at 0 and at {tail} differ")
    except FormatError as error:
        found.append(str(error))
    if image.end > file.size():
        found.append(f"blocks end at {image.end}, the file at {file.size()}")
        return found
    full = image.batmap()
    sectors = image.block_size // SECTOR
    for block in image.allocated():
        if full is not None and full[block >> 3] & (0x80 >> (block & 7)):
            at = image.block_at(block)
            if at is not None and not bits.is_full(file.pread(at, image.header.bitmap_size), sectors):
                found.append(f"the batmap says that block {block} is complete, its bitmap does not")
    if image.type is DiskType.DIFFERENCING:
        try:
            if not parent_paths(image) and not image.header.parent_name:
                found.append("a differencing VHD that names no parent")
        except FormatError as error:
            found.append(str(error))
    return found
