"""Databases in disks of type metadata, in the block layout of the redo log that this program and the original share.

A reader takes the database of the valid half, then the deltas behind it whose generations it has not seen, and ends at
the first that is none (`database-pool-ha` 2.1, 2.4). Only one half is written at a time, and it counts when the byte in
front says so: whatever interrupts a write, the database before it is there.
"""

from __future__ import annotations

import asyncio
import logging
import uuid as uuids
from collections.abc import AsyncIterator, Iterator
from typing import Final

from services.api import opened_databases
from services.api.api import Api
from services.api.disk_pieces import Bytes, reading, write
from shared import garbage
from shared.contracts.db import Delta
from shared.database_dump import writer
from shared.database_dump.reader import PIECE
from shared.errors import ApiError, internal_error
from shared.redo_blocks import deltas, layout
from shared.redo_blocks.layout import UPSTREAM, Damaged, Half
from shared.store import Store

log = logging.getLogger("api.databases")

_GATHERED: Final = 1 << 20
"""Bytes of the document that are written together."""


def turn(vdi: str) -> tuple[str, str]:
    """Who reads or writes a disk's database has its turn: the disk is open for one of them at a time."""
    return ("database in", vdi)


class TooLarge(Exception):
    """The database does not fit into a half; the text says how large both are."""


# ---- reading


async def load(api: Api, vdi: str) -> Store | None:
    """The rows of the database in the disk; None where there is none.

    Raises `Damaged`; INTERNAL_ERROR for a document that is none; what opening the disk raises, OSError.
    """
    async with api.turns.of(turn(vdi)), reading(api, vdi) as disk:
        data = await _half(disk)
    if data is None:
        return None
    with garbage.paused():
        return await _rows(data)


async def _half(disk: Bytes) -> bytes | None:
    """The valid half, as far as it is written."""
    half = _valid(await disk.read(layout.HALVES))
    if half is None or half is Half.NONE:
        return None
    await disk.skip_to(UPSTREAM.start(half))
    data = bytearray(await disk.read(layout.XML))
    length = layout.database_length(bytes(data))
    if length is None or length > UPSTREAM.half:
        raise Damaged(layout.MARKER, "no database: it has no length that fits")
    data += await disk.read(layout.AROUND_XML - layout.XML + length)
    while len(head := await disk.read(layout.NUMBER)) == layout.NUMBER and disk.position <= UPSTREAM.end(half):
        data += head
        size = layout.parsed(head)
        if not size or size > UPSTREAM.half:
            break
        data += await disk.read(size + layout.AROUND_DELTA - layout.NUMBER)
    return bytes(data)


def _valid(head: bytes) -> Half | None:
    return layout.valid_half(head) if head.startswith(layout.MAGIC) else None


async def _rows(data: bytes) -> Store:
    database = layout.database(data)
    at, end = database.xml

    async def piece() -> bytes:
        nonlocal at
        begin, at = at, min(at + PIECE, end)
        return data[begin:at]

    rows = await opened_databases.store(await opened_databases.read(piece))
    rows.generation = seen = database.generation
    try:
        for found in layout.deltas(data, database.end, database.marker):
            if found.generation <= seen:
                continue
            changes = deltas.to_changes([deltas.decode(found.data)])
            rows.apply(Delta(term=0, generation=found.generation, previous=seen, changes=changes))
            seen = found.generation
            await asyncio.sleep(0)
    except (Damaged, deltas.Malformed) as error:
        log.warning("a database's deltas are read up to generation %d: %s", seen, error)
    return rows


async def pool_uuid(api: Api, vdi: str) -> str:
    """Of the pool whose database is in the disk, "" where none can be read. Raises what opening the disk raises,
    INTERNAL_ERROR.
    """
    try:
        rows = await load(api, vdi)
    except Damaged as error:
        log.warning("the database in disk %s cannot be read: %s", vdi, error)
        return ""
    except OSError as error:
        raise internal_error(f"disk {vdi} cannot be read: {error}") from error
    return "" if rows is None else next((str(row["uuid"]) for row in rows.rows("pool").values()), "")


# ---- writing


async def save(api: Api, vdi: str) -> int:
    """Writes all rows, as they are now, into the half that is not valid, and then makes it valid; their generation.

    Raises `TooLarge`, and what opening and writing the disk raise, OSError.
    """
    async with api.turns.of(turn(vdi)):
        async with reading(api, vdi) as disk:
            before = _valid(await disk.read(layout.HALVES)) or Half.NONE
        taken = writer.moment(api.store)
        await write(api, vdi, _database(writer.pieces(taken), before.other, taken.generation))
        await write(api, vdi, _header(before.other))
    return taken.generation


async def _header(half: Half) -> AsyncIterator[tuple[int, bytes]]:
    yield 0, layout.header(half)


async def _database(document: Iterator[bytes], half: Half, generation: int) -> AsyncIterator[tuple[int, bytes]]:
    """With the end of the log behind it. Others get their turn between any two pieces."""
    marker = str(uuids.uuid4()).encode()
    start, at = UPSTREAM.start(half), UPSTREAM.start(half) + layout.XML
    gathered = bytearray()
    for piece in document:
        gathered += piece
        if len(gathered) >= _GATHERED:
            yield at, bytes(gathered)
            at += len(gathered)
            gathered.clear()
            if at > UPSTREAM.end(half):
                raise TooLarge(f"the database is longer than {UPSTREAM.half} bytes, half a disk's layout")
        await asyncio.sleep(0)
    length = at + len(gathered) - start - layout.XML
    gathered += layout.number(generation) + marker + layout.END
    if at + len(gathered) > UPSTREAM.end(half):
        raise TooLarge(f"the database is {length} bytes long, half a disk's layout holds {UPSTREAM.half}")
    yield at, bytes(gathered)
    yield start, marker + layout.number(length)


def reason(error: Exception) -> str:
    """What people are told."""
    return " ".join([error.code, *map(str, error.params)]) if isinstance(error, ApiError) else str(error)
