"""One file with all rows: written whole beside the old one, then in its place.

    <path>              the rows as an XML document, or that compressed
    <path>.generation   their generation in decimal digits, for the original's program
    <path>.origin       whose work the file is: its digest, with the term of its rows

What is true is in the file itself: its manifest has the generation. The file gets its name first and the sidecar
follows, so after a crash between the two the sidecar names an older generation than the manifest: nobody here reads it.
The origin precedes the file, and describes the one before it too, so it fits whichever of the two is there. A file that
it does not fit was put there by somebody else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from services.db.disk import Disk

log = logging.getLogger("db.outputs")

_NEW: Final = ".new"
_GENERATION: Final = ".generation"
_ORIGIN: Final = ".origin"

_GZIP: Final = 31
"""zlib's window bits for a gzip header and trailer."""
_LEVEL: Final = 6
_PIECE: Final = 1 << 18
"""Bytes that are synced together. Whoever syncs anything else on that disk may have to wait for as many: were it the
whole file, commits would.
"""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """One file that was written here. `digest`: BLAKE2b of its bytes, in hexadecimal.

    `pool`: which this host was in, a uuid. `persistent`: of the last commit in it that changed something which a
    restart of the machine keeps; what came after that, up to the generation of the file, need not be in any redo log.
    """

    pool: str
    term: int
    persistent: int
    digest: str = ""


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def generation_file(path: Path) -> Path:
    return _beside(path, _GENERATION)


def origin_file(path: Path) -> Path:
    return _beside(path, _ORIGIN)


# ---- writing: in a child, nothing counts yet


def prepare(
    disk: Disk, path: Path, pieces: Iterable[bytes], *, generation: int, origin: Origin, compress: bool = False
) -> None:
    """Writes the three files under other names, durably. Raises `OSError`; what is there then is no harm.

    `origin`: without the digest.
    """
    digest = hashlib.blake2b(digest_size=32)
    _write(disk, _beside(path, _NEW), _hashed(_compressed(pieces) if compress else pieces, digest))
    origins = [msgspec.structs.replace(origin, digest=digest.hexdigest()), *origins_of(path)[:1]]
    _write(disk, _beside(origin_file(path), _NEW), [msgspec.json.encode(origins)])
    _write(disk, _beside(generation_file(path), _NEW), [b"%d" % generation])


def _write(disk: Disk, path: Path, pieces: Iterable[bytes]) -> None:
    disk.unlink(path)
    descriptor = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        end = 0
        for piece in _together(pieces):
            disk.write_all(descriptor, piece, end)
            disk.sync(descriptor)
            end += len(piece)
    finally:
        disk.close(descriptor)


def _together(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer calls."""
    waiting, length = [], 0
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length >= _PIECE:
            yield b"".join(waiting)
            waiting, length = [], 0
    yield b"".join(waiting)


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _hashed(pieces: Iterable[bytes], digest: hashlib.blake2b) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


# ---- making it count


def install(disk: Disk, path: Path) -> None:
    """Gives the prepared files their names, one after another. Raises `OSError`: then the old ones may be there."""
    for name in (origin_file(path), path, generation_file(path)):
        disk.replace(_beside(name, _NEW), name)


def discard(disk: Disk, path: Path) -> None:
    """Removes what was prepared, so that a full disk has the room again."""
    for name in (path, origin_file(path), generation_file(path)):
        try:
            disk.unlink(_beside(name, _NEW))
        except OSError as error:
            log.warning("%s cannot be removed: %s", _beside(name, _NEW), error.strerror)


def remove(disk: Disk, path: Path) -> None:
    """The file and what is beside it. Raises `OSError`."""
    for name in (path, origin_file(path), generation_file(path)):
        disk.unlink(name)
    disk.sync_folder(path.parent)


# ---- whose work


def origins_of(path: Path) -> list[Origin]:
    """What is written beside a file of its own past, newest first; nothing where that cannot be read."""
    try:
        return msgspec.json.decode(origin_file(path).read_bytes(), type=list[Origin])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s tells nothing: %s", origin_file(path), error)
        return []


def origin_of(path: Path) -> Origin | None:
    """None for a file that somebody else has written. It reads the whole file. Raises `OSError`."""
    known = origins_of(path)
    if not known:
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
    return next((origin for origin in known if origin.digest == digest), None)
