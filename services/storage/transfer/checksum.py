"""The MD5 of a disk's content, as the XenAPI tells it: to see whether two disks are the same, not against anybody."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from typing import Final

from services.storage.formats.interface import PIECE
from services.storage.formats.reading import read_ahead
from services.storage.transfer.disk import Disk

_ZEROS: Final = bytes(PIECE)


async def checksum(disk: Disk) -> str:
    """Hexadecimal. Raises what the disk raises."""
    found = hashlib.md5(usedforsecurity=False)
    async with aclosing(read_ahead(disk, disk.extents())) as pieces:
        async for piece in pieces:
            if piece.data is not None:
                found.update(piece.data)
            else:
                for at in range(0, piece.length, PIECE):
                    found.update(memoryview(_ZEROS)[: min(PIECE, piece.length - at)])
                    disk.reached = max(disk.reached, piece.offset + at)
                    await asyncio.sleep(0)
            disk.reached = max(disk.reached, piece.offset + piece.length)
    return found.hexdigest()
