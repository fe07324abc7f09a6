"""The journal of a VHD that is resized: what takes it back to the size that it had.

A resize is safe by itself: at any moment the image has either size. The journal is for drivers that undo it, since the
file may have to fit into a smaller logical volume again. It holds the footer and header of before (old tables stay
where they are) and is durable before the image changes.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib
from contextlib import suppress
from typing import Final

from services.storage.formats.vhd.files import OsFile
from services.storage.formats.vhd.footer import FOOTER_SIZE, DiskType, parse_footer
from services.storage.formats.vhd.header import HEADER_SIZE
from services.storage.formats.vhd.image import Image
from services.storage.smapiv1.shims.program import Failed

_MAGIC: Final = b"vhdresz1"
_HEAD: Final = struct.Struct(">8sI4x")
_SIZE: Final = _HEAD.size + FOOTER_SIZE + HEADER_SIZE
_ROOM: Final = 4096


def begin(path: str, image: Image) -> None:
    """`path`: a new file, or a block device. Raises EEXIST if a resize was not ended there, `OSError`."""
    if _read(path) is not None:
        raise Failed(errno.EEXIST, f"{path} is the journal of a resize that has not ended")
    header = bytes(HEADER_SIZE) if image.fixed else image.header.pack()
    body = image.footer.pack() + header
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, (_HEAD.pack(_MAGIC, zlib.crc32(body)) + body).ljust(_ROOM, b"\0"), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_folder(path)


def end(path: str) -> None:
    """Removes it; a block device only forgets it."""
    if stat.S_ISBLK(os.stat(path).st_mode):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, bytes(_ROOM), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    else:
        os.unlink(path)
        _sync_folder(path)


def revert(path: str, journal: str) -> None:
    """Puts the image back, and ends the journal. One that is not whole was not begun with. Raises ENOENT, EINVAL."""
    if not os.path.exists(journal):
        raise Failed(errno.ENOENT, f"{journal} is not there")
    saved = _read(journal)
    if saved is not None:
        _restore(path, saved)
    end(journal)


def _restore(path: str, saved: bytes) -> None:
    old = parse_footer(saved[:FOOTER_SIZE], "in the journal")
    with OsFile(path, writable=True) as file:
        with Image.open(OsFile(path)) as image:
            if image.footer.uuid != old.uuid:
                raise Failed(errno.EINVAL, f"the journal is of {old.uuid}, {path} is {image.footer.uuid}")
        if old.type is DiskType.FIXED:
            file.pwrite(old.size, saved[:FOOTER_SIZE])
            file.flush()
            file.truncate(old.size + FOOTER_SIZE)
        else:
            # The footer first: a smaller disk in the larger table is sound, a larger one in the smaller is not.
            file.pwrite(0, saved[:FOOTER_SIZE])
            file.flush()
            file.pwrite(old.data_offset, saved[FOOTER_SIZE:])
        file.flush()
    if old.type is not DiskType.FIXED:
        Image.open(OsFile(path, writable=True), writable=True).close()  # makes the footer at the end


def _read(path: str) -> bytes | None:
    """Footer and header, if a whole journal is there."""
    with suppress(FileNotFoundError):
        with open(path, "rb") as file:
            data = file.read(_SIZE)
        if len(data) == _SIZE:
            magic, summed = _HEAD.unpack_from(data)
            if magic == _MAGIC and summed == zlib.crc32(data[_HEAD.size :]):
                return data[_HEAD.size :]
    return None


def _sync_folder(path: str) -> None:
    descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
