"""A differencing VHD's data written into its parent. Repeating it changes nothing: after a crash, do it again."""

from __future__ import annotations

from services.storage.formats.interface import PIECE, FormatError
from services.storage.formats.vhd.files import ImageFile
from services.storage.formats.vhd.footer import SECTOR, DiskType
from services.storage.formats.vhd.image import Image


def coalesce(child: Image, parent: Image | ImageFile) -> int:
    """Returns how many sectors were written. The parent (a raw file, or a VHD open for writing) is durable then.

    The child is left as it is: until its own children have the parent for theirs, it is still needed. Raises
    `FormatError` if the parent is smaller, and `OSError`.
    """
    if child.type is not DiskType.DIFFERENCING:
        raise FormatError(f"a {child.type.name.lower()} VHD has no parent")
    raw = not isinstance(parent, Image)
    size = parent.size() if not isinstance(parent, Image) else parent.size
    if size < child.size and not raw:
        raise FormatError(f"the parent of {size} bytes is smaller than its child of {child.size}: grow it before")
    written = 0
    for block in child.allocated():
        begin = block * child.block_size
        for span in child.spans(begin, min(child.block_size, child.size - begin)):
            if span.position is None:
                continue
            for at in range(0, span.length, PIECE):
                length = min(PIECE, span.length - at)
                data = child.read_at(span.position + at, length)
                if isinstance(parent, Image):
                    parent.write(span.offset + at, data)
                else:
                    parent.pwrite(span.offset + at, data)
            written += span.length // SECTOR
    parent.flush()
    return written
