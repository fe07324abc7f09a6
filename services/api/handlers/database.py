"""`/pool/xmldbdump`: the pool's database as one XML document in the original's format, out and in again."""

from __future__ import annotations

import asyncio
import uuid as uuids
from collections.abc import Iterator, Sequence
from typing import Final

from services.api import opened_databases
from services.api.api import Api
from services.api.decisions.database_restore import Plan, check_version, plan
from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.handler import Request, handler
from shared import garbage
from shared.contracts.db import (
    RESTORE,
    RESTORE_PART,
    Change,
    Committed,
    Delete,
    Delta,
    Restore,
    RestorePart,
    RowChange,
    RowDeleted,
    RowModified,
    SnapshotRow,
    Update,
)
from shared.contracts.host import RESTART, Seconds
from shared.database_dump import writer
from shared.database_dump.schema import SCHEMA_VERSION
from shared.errors import internal_error
from shared.store import NULL, Store

FUSE: Final = 30
"""Seconds from a restore to the start of the API process anew, in which clients learn how it went."""
PART: Final = 200
"""Rows that travel together."""
PATIENCE: Final = 300.0
"""Seconds that the database may take to write, or its followers to fetch, all rows."""

_STREAM: Final = (("connection", "close"), ("cache-control", "no-cache, no-store"))


@handler("get_pool_xml_db_sync")
async def get_pool_xml_db_sync(request: Request) -> None:
    """All rows at one moment, made while they are sent: nobody knows the length before. Members have them too."""
    taken = writer.moment(request.store)
    await request.stream.start(_STREAM)
    for piece in writer.pieces(taken):
        await request.stream.write(piece)
        await asyncio.sleep(0)  # a client that is quick never makes `write` wait


def _possible(request: Request) -> None:
    """Raises `HttpRefusal` 302, 400."""
    request.on_coordinator()
    if request.stream.length is None:
        raise HttpRefusal(400, bare=True, error=internal_error("Content-Length is missing"))


@handler("put_pool_xml_db_sync", before=_possible)
async def put_pool_xml_db_sync(request: Request) -> None:
    """The reply begins before the body is read; how it went is the task's to tell. `dry_run`: nothing changes."""
    api = request.api
    await request.accept(_STREAM)
    with garbage.paused():
        dump = await opened_databases.read(request.stream.read)
        check_version(dump.schema, SCHEMA_VERSION)
        async with api.turns.of("database restore"):
            backup = await opened_databases.store(dump)
            intended = plan(backup, api.store, api.host_ref)
            if request.flag("dry_run"):
                return
            backup.apply(Delta(term=0, generation=0, previous=0, changes=list(_changes(intended.changes))))
            committed = await _restore(request, backup, dump.generation, intended)
    if not await api.replica.reaches(committed.generation, PATIENCE):
        raise internal_error("the database is restored, and its rows have not arrived here")
    api.database.term = committed.term
    await api.bus.call(RESTART, Seconds(seconds=FUSE), host=api.host_uuid)


def _changes(changes: Sequence[Change]) -> Iterator[RowChange]:
    for change in changes:
        match change:
            case Update():
                yield RowModified(cls=change.cls, ref=change.ref, fields=change.fields)
            case Delete():
                yield RowDeleted(cls=change.cls, ref=change.ref)
            case _:
                raise TypeError(f"a restore makes no {type(change).__name__}")


async def _restore(request: Request, backup: Store, generation: int, intended: Plan) -> Committed:
    """Messages stay, and who asked for it; all other sessions and tasks end.

    Over the Unix socket a request has no session, and its task has one nevertheless.
    """
    api, name = request.api, str(uuids.uuid4())
    number = 0
    for number, rows in enumerate(_parts(backup), 1):
        await api.bus.call(RESTORE_PART, RestorePart(restore=name, number=number - 1, rows=rows))
    wanted = Restore(
        restore=name,
        parts=number,
        generation=generation,
        keep=["message"],
        rows=[ref for ref in (request.session, request.task, _owner(request)) if ref],
        renamed=_renamed(api, intended),
    )
    return await api.bus.call(RESTORE, wanted, timeout=PATIENCE)


def _owner(request: Request) -> str:
    row = request.store.row("task", request.task)
    return str(row["session"]) if row is not None else ""


def _parts(backup: Store) -> Iterator[list[SnapshotRow]]:
    part: list[SnapshotRow] = []
    for row in backup.snapshot():
        part.append(row)
        if len(part) == PART:
            yield part
            part = []
    if part:
        yield part


def _renamed(api: Api, intended: Plan) -> dict[str, str]:
    return {api.host_ref: intended.host} if api.host_ref != NULL else {}
