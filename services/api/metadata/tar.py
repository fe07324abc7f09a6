"""The archive around `ova.xml`: plain tar, of which exports without disks have this one file."""

from __future__ import annotations

import tarfile
from collections.abc import Awaitable, Callable
from typing import Final

from shared.errors import ApiError, internal_error

NAME: Final = "ova.xml"
BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
LARGEST: Final = 32 * 1024 * 1024
"""Bytes of the largest document that is read: some five thousand VMs. Parsed, one takes 18 times as much memory."""

Read = Callable[[int], Awaitable[bytes]]
"""The next bytes, at most so many; b"" at the end."""


def header(size: int, now: float) -> bytes:
    """What stands before a document of so many bytes."""
    info = tarfile.TarInfo(NAME)
    info.size, info.mtime, info.mode = size, int(now), 0o400
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


async def read_document(read: Read) -> str:
    """The text of `ova.xml`, which must come first.

    Raises IMPORT_ERROR, IMPORT_ERROR_UNEXPECTED_FILE, IMPORT_ERROR_PREMATURE_EOF; INTERNAL_ERROR for no archive at all.
    """
    block = await _exactly(read, BLOCK)
    if len(block) < BLOCK:
        raise internal_error("End_of_file: there is no archive")
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise internal_error(f"not a tar archive: {error}") from None
    if info.name != NAME:
        raise ApiError("IMPORT_ERROR_UNEXPECTED_FILE", NAME, info.name.encode("utf-8", "replace").decode())
    if not info.isreg() or not 0 <= info.size <= LARGEST:
        raise ApiError("IMPORT_ERROR", f"{NAME} of {info.size} bytes: at most {LARGEST} are read")
    document = await _exactly(read, info.size)
    if len(document) < info.size:
        raise ApiError("IMPORT_ERROR_PREMATURE_EOF")
    try:
        return document.decode()
    except UnicodeDecodeError:
        raise ApiError("IMPORT_ERROR", f"{NAME} is not UTF-8") from None


async def _exactly(read: Read, size: int) -> bytes:
    """So many bytes, or as many as there are."""
    found = bytearray()
    while len(found) < size and (data := await read(size - len(found))):
        found += data
    return bytes(found)
