"""Databases in files, looked into by sessions of their own, which can only read (`session.create_from_db_file`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import BinaryIO, Final

from shared import garbage
from shared.database_dump.reader import PIECE, Dump, DumpError, Reader
from shared.datamodel.schema import Message
from shared.errors import ApiError, internal_error
from shared.store import Store

ROLE: Final = "read-only"
USER: Final = "db-from-file"
SID: Final = "readonly-sid"
"""By this `auth_user_sid` such sessions are known, also to a process that has not opened them."""

LIMIT: Final = 8
"""Databases open at once; beyond, the one opened first is closed. Each may take as much memory as the pool's own."""

_LOGOUT: Final = "session.logout"
_SLICE: Final = 200


class OpenedDatabases:
    """Session to the rows that it sees."""

    def __init__(self) -> None:
        self._rows: dict[str, Store] = {}

    def open(self, session: str, rows: Store) -> None:
        while len(self._rows) >= LIMIT:
            del self._rows[next(iter(self._rows))]
        self._rows[session] = rows

    def rows(self, session: str, message: Message, *, reads: bool) -> Store:
        """What a call of that session looks at: never the pool's own rows.

        Raises NOT_IMPLEMENTED for what is no look-up of rows, SESSION_INVALID for a session whose database is closed.
        """
        if message.wire_name == _LOGOUT:
            return self._rows.pop(session, None) or Store()
        found = self._rows.get(session)
        if found is None:
            raise ApiError("SESSION_INVALID", session)
        if not reads:
            raise ApiError("NOT_IMPLEMENTED", message.wire_name)
        return found

    def keep(self, sessions: Callable[[str], bool]) -> None:
        """Closes the databases of sessions that are no more."""
        self._rows = {session: rows for session, rows in self._rows.items() if sessions(session)}


async def read(piece: Callable[[], Awaitable[bytes]]) -> Dump:
    """A dump that comes in pieces, the last one empty; others get their turn. Raises INTERNAL_ERROR for no database."""
    reader = Reader()
    try:
        while data := await piece():
            reader.feed(data)
            await asyncio.sleep(0)  # where the next piece is there already, nobody waits
        return reader.close()
    except DumpError as error:
        raise internal_error(f"not a database: {error}") from error


async def store(dump: Dump) -> Store:
    """The dump's rows, with their relations."""
    found = Store()
    for begin in range(0, len(dump.rows), _SLICE):
        found.add(dump.rows[begin : begin + _SLICE])
        await asyncio.sleep(0)
    found.complete(dump.generation, 0)
    return found


def _opened(path: str) -> BinaryIO:
    return open(path, "rb")


async def open_file(path: str) -> Store:
    """Raises INTERNAL_ERROR for a file that cannot be read, or is no database."""
    try:
        file = await asyncio.to_thread(_opened, path)
        try:
            with garbage.paused():
                return await store(await read(lambda: asyncio.to_thread(file.read, PIECE)))
        finally:
            file.close()
    except OSError as error:
        raise internal_error(f'Sys_error("{path}: {error.strerror}")') from error
