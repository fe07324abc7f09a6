"""A disk as entries of a tar archive, as XVAs hold them: chunks of 1 MiB, each followed by its checksum.

The entries are `<prefix>/<number>` (8 digits) and `<prefix>/<number>.xxhash` (or, older, `.checksum`). A chunk of zeros
is left out, and its number with it; the first and the last are always there. An entry without content takes a number
and no place: a sign of life, when much is left out.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final, Literal, NamedTuple

import xxhash

from services.storage.formats.forward import Forward
from services.storage.formats.interface import PIECE, Data, FormatError, Input, Output, Sink, Source, Truncated
from services.storage.formats.reading import aligned, read_ahead
from services.storage.formats.writing import Target
from services.storage.formats.zeros import is_zero, zeros

CHUNK: Final = 1 << 20
SILENCE: Final = 5.0
"""Seconds after which an entry without content is sent."""
_BLOCK: Final = 512
_FORM: Final = "tar"
_ENTRY: Final = re.compile(r"(?:.*/)?([0-9]{8,})(?:\.(xxhash|checksum))?", re.DOTALL)
_MAX_CHUNK: Final = 64 << 20

Hash = Literal["xxhash", "checksum"]
HASHES: Final[dict[str, Callable[[Data], str]]] = {
    "xxhash": lambda data: xxhash.xxh64_hexdigest(data).upper(),
    "checksum": lambda data: hashlib.sha1(data, usedforsecurity=False).hexdigest(),
}
"""By the suffix of their entries. Tools before XVAs had `.xxhash` know `.checksum` (SHA-1) only."""


async def write_tar(
    source: Source,
    output: Output,
    prefix: str,
    hashed: Hash = "xxhash",
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """One disk as an archive of its own."""
    await write_entries(source, output, prefix, hashed, clock)
    await output.write(zeros(2 * _BLOCK))


async def write_entries(
    source: Source,
    output: Output,
    prefix: str,
    hashed: Hash = "xxhash",
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """The entries of one disk, for an archive that holds more. `prefix`: their folder."""
    number, last, sent = 0, (source.size - 1) // CHUNK * CHUNK, clock()
    async with aclosing(read_ahead(source, aligned(source.extents(), CHUNK, 0, source.size))) as pieces:
        async for piece in pieces:
            for at in range(piece.offset, piece.offset + piece.length, CHUNK):
                data = piece.data
                if data is None or is_zero(data):
                    if 0 < at < last:
                        if clock() - sent > SILENCE:
                            await _write_chunk(output, prefix, number, b"", hashed)
                            number, sent = number + 1, clock()
                        number += 1
                        continue
                    data = zeros(min(CHUNK, source.size - at))
                await _write_chunk(output, prefix, number, data, hashed)
                number, sent = number + 1, clock()


async def _write_chunk(output: Output, prefix: str, number: int, data: Data, hashed: Hash) -> None:
    name = f"{prefix.rstrip('/')}/{number:08d}" if prefix else f"{number:08d}"
    checksum = HASHES[hashed](data).encode()
    await output.write(_header(name, len(data)))
    if data:
        await output.write(data)
    ended = zeros(-len(data) % _BLOCK) + _header(f"{name}.{hashed}", len(checksum))
    await output.write(ended + checksum + zeros(-len(checksum) % _BLOCK))


def _header(name: str, size: int) -> bytes:
    encoded = name.encode()
    if len(encoded) > 100:
        raise FormatError(f"tar: the name {name!r} is longer than 100 bytes")
    fields = (
        (encoded, 100),
        (b"0000644\0", 8),
        (b"0000000\0", 8),
        (b"0000000\0", 8),
        (b"%011o\0" % size, 12),
        (b"%011o\0" % 0, 12),
        (b" " * 8, 8),  # the checksum counts as spaces
        (b"0", 1),
        (b"", 100),
        (b"ustar\x0000", 8),
    )
    data = b"".join(value.ljust(width, b"\0") for value, width in fields).ljust(_BLOCK, b"\0")
    return data[:148] + b"%06o\0 " % sum(data) + data[156:]


class Entry(NamedTuple):
    """`kind`: of the file, as tar says it: b"0" for plain ones."""

    name: str
    size: int
    kind: bytes


def parse_header(data: bytes, at: int) -> Entry | None:
    """None: a block of zeros, as archives end. Raises `FormatError`."""
    if is_zero(data):
        return None
    summed = sum(data) - sum(data[148:156]) + 8 * 0x20
    try:
        said = _number(data[148:156])
        size = _number(data[124:136])
        name = data[:100].split(b"\0", 1)[0].decode()
        folder = data[345:500].split(b"\0", 1)[0].decode() if data[257:263] == b"ustar\0" else ""
    except ValueError as error:
        raise FormatError(f"tar: the block at {at} is no entry's header: {error}") from error
    if said != summed:
        raise FormatError(f"tar: the header at {at} has checksum {said}, computed {summed}")
    return Entry(f"{folder}/{name}" if folder else name, size, data[156:157].replace(b"\0", b"0"))


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.replace(b"\0", b" ").strip()
    if not re.fullmatch(rb"[0-7]*", text):
        raise ValueError(f"{field!r} is not octal")
    return int(text or b"0", 8)


class Chunks:
    """Takes the entries of one disk in turn. `complete`: all of the disk has come, and its last checksum was right."""

    def __init__(self, target: Target) -> None:
        self.offset = 0
        self._target = target
        self._chunk_size = 0
        self._number = -1
        self._unchecked: bytes | None = None

    @property
    def complete(self) -> bool:
        return self.offset >= self._target.size and not self._unchecked

    async def take(self, entry: Entry, source: Forward) -> None:
        """Reads the entry's content from the stream, with its padding. Raises `FormatError`, `Truncated`."""
        match = _ENTRY.fullmatch(entry.name)
        if match is None:
            raise FormatError(f"tar: the entry {entry.name!r} is no chunk of a disk")
        if entry.size > _MAX_CHUNK:
            raise FormatError(f"tar: the entry {entry.name!r} has {entry.size} bytes")
        number, suffix = int(match[1]), match[2]
        if suffix is None:
            self._expect_checked(entry.name)
        data = await source.read_long(entry.size, entry.name) if entry.size else b""
        await source.skip_to(source.position + -entry.size % _BLOCK, f"the padding of {entry.name}")
        if suffix is None:
            await self._take_data(entry.name, number, data)
        else:
            self._check(entry.name, number, suffix, data)

    async def _take_data(self, name: str, number: int, data: bytes) -> None:
        if number <= self._number:
            raise FormatError(f"tar: the entry {name!r} comes after number {self._number}")
        if not self._chunk_size:
            if number or not data:
                raise FormatError(f"tar: the first entry {name!r} is not chunk 0")
            self._chunk_size = len(data)
        if len(data) > self._chunk_size:
            raise FormatError(f"tar: the entry {name!r} has {len(data)} bytes, more than the first")
        self.offset += (number - self._number - 1) * self._chunk_size
        for at in range(0, len(data), PIECE):
            await self._target.write(self.offset + at, data[at : at + PIECE])
        self.offset += len(data)
        self._number = number
        self._unchecked = data

    def _check(self, name: str, number: int, suffix: str, said: bytes) -> None:
        if self._unchecked is None or number != self._number:
            raise FormatError(f"tar: the checksum {name!r} does not follow its chunk")
        computed = HASHES[suffix](self._unchecked)
        if said.decode("ascii", "replace").strip().lower() != computed.lower():
            raise FormatError(f"tar: {name!r} says {said!r}, computed {computed}")
        self._unchecked = None

    def _expect_checked(self, name: str) -> None:
        if self._unchecked:
            raise FormatError(f"tar: {name!r} comes where the checksum of chunk {self._number} should be")

    def end(self, offset: int) -> None:
        """The archive ends. Raises `FormatError` if something is missing."""
        self._expect_checked(f"the end at {offset}")
        if self._number < 0:
            raise FormatError("tar: an archive without a chunk of a disk")


async def read_tar(stream: Input, sink: Sink, prefix: str = "") -> int:
    """Decodes an archive of one disk, whose chunks go where the disk is zeros elsewhere; returns the bytes it covers.

    `prefix`: folder that the names must begin with ("" for any). Ends after the disk's last chunk, or at the end of the
    archive: a shorter disk fills only a part. Raises `FormatError`, `Truncated`.
    """
    source = Forward(stream, _FORM)
    async with Target(sink, _FORM) as target:
        chunks = Chunks(target)
        while not chunks.complete:
            at = source.position
            data = await source.read_up_to(_BLOCK)
            if len(data) < _BLOCK:
                raise Truncated(f"tar: the stream ends at {at + len(data)}, before the archive and the disk do")
            entry = parse_header(data, at)
            if entry is None:
                chunks.end(at)
                break
            if entry.kind != b"0":
                raise FormatError(f"tar: the entry {entry.name!r} at {at} is no plain file, but of type {entry.kind!r}")
            if prefix and not entry.name.startswith(prefix.rstrip("/") + "/"):
                raise FormatError(f"tar: the entry {entry.name!r} is not in {prefix!r}")
            await chunks.take(entry, source)
        await target.finish()
    return chunks.offset
