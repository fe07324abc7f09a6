"""VHD files as blktap's tools name, open, make and look them up."""

from __future__ import annotations

import errno
import os
from typing import Final

from services.storage.formats.interface import FormatError
from services.storage.formats.vhd import bitmap as bits
from services.storage.formats.vhd.chain import RawParent, find_parent, parent_of, raw_parent_of
from services.storage.formats.vhd.create import create_differencing, create_dynamic, create_fixed
from services.storage.formats.vhd.files import OsFile
from services.storage.formats.vhd.footer import DiskType
from services.storage.formats.vhd.header import BLOCK_SIZE, NO_PARENT
from services.storage.formats.vhd.image import Image
from services.storage.smapiv1.shims.program import Failed

MIB: Final = 1 << 20
_KEY_AT: Final = 29
"""In a batmap's header: whether there is a key (1 byte), the nonce (32) and the hash of the key (32)."""


def opened(path: str, writable: bool = False) -> Image:
    """Raises `FormatError`, `OSError`; `Failed` if an encrypted image would be written to."""
    file = OsFile(path, writable)
    try:
        image = Image.open(file, writable)
        if writable and key_of(image) is not None:
            raise encrypted(path)
    except BaseException:
        file.close()
        raise
    return image


def encrypted(path: str) -> Failed:
    return Failed(errno.ENOTSUP, f"{path} is encrypted, which is not supported")


def key_of(image: Image) -> tuple[str, str] | None:
    """Nonce and hash (hexadecimal) of the key of an encrypted image."""
    if image.batmap_header is None:
        return None
    at = image.header.bat_offset + bits.bat_size(image.header.entries) + _KEY_AT
    data = image.file.pread(at, 65)
    return (data[1:33].hex(), data[33:65].hex()) if data[:1] == b"\1" else None


def parent_path(image: Image, path: str) -> str | None:
    """None: it stands on nothing. Raises `FormatError` if what it stands on is not there."""
    return find_parent(image, path) if image.type is DiskType.DIFFERENCING else None


def stands_on_raw(image: Image) -> bool:
    return image.type is DiskType.DIFFERENCING and image.header.parent_uuid == NO_PARENT


def depth(path: str) -> int:
    """How many images the disk is made of, a raw one at the root included. Raises as `opened`."""
    count, seen = 1, {os.path.realpath(path)}
    here: str | None = path
    while here is not None:
        with opened(here) as image:
            ahead = parent_path(image, here)
            raw = stands_on_raw(image)
        if ahead is not None:
            if os.path.realpath(ahead) in seen:
                raise FormatError(f"{path}: its chain comes back to {ahead}")
            seen.add(os.path.realpath(ahead))
            count += 1
        here = None if raw else ahead
    return count


def create(path: str, size: int, reserve: bool = False, max_size: int = 0) -> None:
    """A new image, or a new one in place of the file. Bytes; the size is rounded up to blocks. Raises as `opened`."""
    with OsFile(path, writable=True, create=not os.path.exists(path)) as file:
        if reserve:
            create_fixed(file, size)
        else:
            create_dynamic(file, max(1, -(-size // BLOCK_SIZE)) * BLOCK_SIZE, max_size=max_size)


def snapshot(path: str, parent: str, raw: bool = False, max_size: int = 0, skip_empty: bool = True) -> None:
    """A child of `parent` (or of what that stands on, if it has no blocks of its own), of the parent's size."""
    size = 0
    if not raw:
        with opened(parent) as image:
            size = image.size
            key = key_of(image)
        if key is not None:
            raise encrypted(parent)
        if skip_empty:
            parent, raw = _not_empty(parent)
    if raw:
        with OsFile(parent) as file:
            size = size or RawParent(file).size
    known = raw_parent_of(parent, path) if raw else parent_of(parent, path)
    with OsFile(path, writable=True, create=not os.path.exists(path)) as file:
        create_differencing(file, size, known, max_size=max_size)


def _not_empty(path: str) -> tuple[str, bool]:
    """The nearest image with blocks, and whether it is a raw one."""
    while True:
        with opened(path) as image:
            ahead = parent_path(image, path)
            if ahead is None or any(True for _ in image.allocated()):
                return path, False
            raw = stands_on_raw(image)
        path = ahead
        if raw:
            return path, True
