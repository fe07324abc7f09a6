"""The header of dynamic and differencing VHDs (1024 bytes) and its parent locators."""

from __future__ import annotations

import struct
import urllib.parse
import uuid as uuids
from dataclasses import dataclass
from typing import Final

from services.storage.formats.interface import FormatError
from services.storage.formats.vhd.footer import NOWHERE, SECTOR, VERSION, checksum

HEADER_SIZE: Final = 1024
BLOCK_SIZE: Final = 2 << 20
"""Bytes of a block in what we write."""
MIN_BLOCK_SIZE: Final = 8 * SECTOR
MAX_BLOCK_SIZE: Final = 64 << 20
MAX_BAT_ENTRIES: Final = 1 << 22
NO_PARENT: Final = uuids.UUID(int=0)

MAC_URL: Final = b"MacX"
RELATIVE: Final = b"W2ru"
ABSOLUTE: Final = b"W2ku"
NO_LOCATOR: Final = b"\0\0\0\0"

_COOKIE: Final = b"cxsparse"
_FIELDS: Final = struct.Struct(">8sQQIIII16sII")
_LOCATOR: Final = struct.Struct(">4sIIIQ")
_CHECKSUM_AT: Final = 36
_NAME_AT: Final = 64
_NAME_SIZE: Final = 512
_LOCATORS_AT: Final = 576
LOCATORS: Final = 8
MAX_LOCATOR: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Locator:
    """Where in the file the parent's path stands. `space`: as stored, sectors or (512 and more) bytes."""

    code: bytes = NO_LOCATOR
    space: int = 0
    length: int = 0
    offset: int = 0

    @property
    def used(self) -> bool:
        return self.code != NO_LOCATOR

    @property
    def room(self) -> int:
        """Bytes set aside. Some writers count sectors, as the specification says, others bytes."""
        return self.space if self.space >= SECTOR else self.space * SECTOR


@dataclass(frozen=True, slots=True)
class Header:
    """`entries`: of the BAT, at `bat_offset`. `parent_mtime`: seconds since 2000."""

    bat_offset: int
    entries: int
    block_size: int = BLOCK_SIZE
    parent_uuid: uuids.UUID = NO_PARENT
    parent_mtime: int = 0
    parent_name: str = ""
    locators: tuple[Locator, ...] = ()

    def pack(self) -> bytes:
        name = self.parent_name.encode("utf-16-be")
        if len(name) > _NAME_SIZE:
            raise FormatError(f"parent name of {len(name)} bytes, a VHD has room for {_NAME_SIZE}")
        if len(self.locators) > LOCATORS:
            raise FormatError(f"{len(self.locators)} parent locators, a VHD has room for {LOCATORS}")
        data = bytearray(HEADER_SIZE)
        _FIELDS.pack_into(
            *(data, 0, _COOKIE, NOWHERE, self.bat_offset, VERSION, self.entries, self.block_size, 0),
            *(self.parent_uuid.bytes, self.parent_mtime, 0),
        )
        data[_NAME_AT : _NAME_AT + len(name)] = name
        for number, locator in enumerate(self.locators):
            at = _LOCATORS_AT + number * _LOCATOR.size
            _LOCATOR.pack_into(data, at, locator.code, locator.space, locator.length, 0, locator.offset)
        struct.pack_into(">I", data, _CHECKSUM_AT, checksum(data, _CHECKSUM_AT))
        return bytes(data)

    @property
    def bitmap_size(self) -> int:
        """Bytes of a block's bitmap, padded to a sector."""
        return -(-self.block_size // SECTOR // 8 // SECTOR) * SECTOR


def parse_header(data: bytes, at: int) -> Header:
    """`at`: where it was found, for messages. Raises `FormatError`."""

    def wrong(what: str) -> FormatError:
        return FormatError(f"VHD header at {at}: {what}")

    if len(data) != HEADER_SIZE:
        raise wrong(f"{len(data)} bytes instead of {HEADER_SIZE}")
    cookie, _, bat_offset, version, entries, block_size, summed, parent, mtime, _ = _FIELDS.unpack_from(data)
    if cookie != _COOKIE:
        raise wrong(f"begins with {cookie!r} instead of {_COOKIE!r}")
    if summed != (computed := checksum(data, _CHECKSUM_AT)):
        raise wrong(f"checksum {summed:#010x}, computed {computed:#010x}")
    if version >> 16 != VERSION >> 16:
        raise wrong(f"version {version:#x}, only 1.x is known")
    if bat_offset % SECTOR or bat_offset < SECTOR:
        raise wrong(f"block allocation table at {bat_offset:#x}, which is no sector of the file's inside")
    if not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE or block_size & (block_size - 1):
        raise wrong(f"block size {block_size}")
    if entries > MAX_BAT_ENTRIES:
        raise wrong(f"block allocation table of {entries} entries")
    try:
        name = data[_NAME_AT : _NAME_AT + _NAME_SIZE].decode("utf-16-be").split("\0", 1)[0]
    except UnicodeDecodeError as error:
        raise wrong(f"parent name is not UTF-16: {error}") from error
    return Header(
        bat_offset=bat_offset,
        entries=entries,
        block_size=block_size,
        parent_uuid=uuids.UUID(bytes=parent),
        parent_mtime=mtime,
        parent_name=name,
        locators=tuple(_parse_locators(data, wrong_at=at)),
    )


def _parse_locators(data: bytes, wrong_at: int) -> list[Locator]:
    locators = []
    for number in range(LOCATORS):
        code, space, length, _, offset = _LOCATOR.unpack_from(data, _LOCATORS_AT + number * _LOCATOR.size)
        locator = Locator(code, space, length, offset)
        if locator.used and (length > MAX_LOCATOR or length > locator.room or offset % SECTOR or offset > 1 << 41):
            raise FormatError(
                f"VHD header at {wrong_at}: parent locator {number} ({code!r}) of {length} bytes "
                f"in {space} at {offset:#x}"
            )
        locators.append(locator)
    return locators


def encode_path(code: bytes, path: str) -> bytes:
    """A path, relative to the child's folder (or absolute), as a locator of that code holds it."""
    if not path.startswith(("/", "./", "../")):
        path = f"./{path}"
    if code == MAC_URL:
        return f"file://{urllib.parse.quote(path)}".encode()
    return path.replace("/", "\\").encode("utf-16-le")


def decode_path(code: bytes, data: bytes) -> str | None:
    """The path in a locator; None if the code is not known, or nothing can be read there."""
    try:
        if code == MAC_URL:
            text = data.decode("utf-8").rstrip("\0")
            return urllib.parse.unquote(text.removeprefix("file://")) or None
        if code in (RELATIVE, ABSOLUTE):
            text = data[: len(data) & ~1].decode("utf-16-le").rstrip("\0")
            return text.replace("\\", "/") or None
    except UnicodeDecodeError:
        return None
    return None
