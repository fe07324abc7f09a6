"""The XenAPI on the host's Unix socket, where root needs no password: for the adapter, and for the drivers' sessions.

Drivers call back while the adapter waits for them, so no lock is held here across a driver's run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from services.storage.plugins.errors import plugin_failed
from services.storage.smapiv1.kept_sessions import KeptSessions
from shared.contracts.storage import SM_MAKES_FOR, SM_SESSION
from shared.errors import ApiError

log = logging.getLogger("storage.smapiv1")

ORIGINATOR: Final = "SM"
NULL: Final = "OpaqueRef:NULL"
_INVALID: Final = "SESSION_INVALID"
_AGAIN: Final = 0.1
"""Seconds between two attempts to connect."""


class Xapi:
    """One host's socket. Sessions are made when needed, one for each SR, and made again when they have ended.

    `patience`: seconds that the API may be away, since services start in any order and are restarted. `kept`: file
    that names the sessions, for the next process.
    """

    def __init__(self, socket: str, patience: float = 5.0, kept: Path | None = None) -> None:
        self.socket = socket
        self._kept = KeptSessions(kept)
        self.patience = patience
        self._sessions: dict[str, str] = {}
        self._making: dict[str, asyncio.Lock] = {}

    async def call(self, sr: str, method: str, *params: Any) -> Any:
        """In the session of that SR (reference; "": of none). Raises `ApiError`."""
        session = await self.session(sr)
        try:
            return await self._request(method, session, *params)
        except ApiError as error:
            if error.code != _INVALID:
                raise
        self._sessions.pop(sr, None)
        return await self._request(method, await self.session(sr), *params)

    async def session(self, sr: str) -> str:
        """Raises `ApiError`."""
        async with self._making.setdefault(sr, asyncio.Lock()):
            if sr not in self._sessions:
                self._sessions[sr] = await self._log_in({SM_SESSION: sr} if sr else {})
            return self._sessions[sr]

    @asynccontextmanager
    async def making(self, sr: str, task: str) -> AsyncIterator[str]:
        """A session of that SR in which one disk is made, for a task (references). Raises `ApiError`."""
        session = await self._log_in({SM_SESSION: sr, SM_MAKES_FOR: task})
        try:
            yield session
        finally:
            with suppress(ApiError):  # the next process tries again
                await self._end(session)

    async def _log_in(self, config: Mapping[str, str]) -> str:
        session: str = await self._request("session.login_with_password", "root", "", "", ORIGINATOR)
        self._kept.add(session)
        for key, value in config.items():
            await self._request("session.add_to_other_config", session, session, key, value)
        return session

    async def logout(self, srs: Iterable[str] | None = None) -> None:
        """Ends the sessions of those SRs, or all of them."""
        for sr in list(self._sessions) if srs is None else list(srs):
            session = self._sessions.pop(sr, None)
            if session is not None:
                with suppress(ApiError):  # the next process tries again
                    await self._end(session)

    async def end_former(self) -> None:
        """Ends the sessions of an earlier process. Raises what keeps the API from answering."""
        for session in list(self._kept.former):
            await self._end(session)

    async def _end(self, session: str) -> None:
        try:
            await self._request("session.logout", session)
        except ApiError as error:
            if error.code != _INVALID:
                raise
        self._kept.drop(session)

    async def _request(self, method: str, *params: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()
        head = (
            "POST /jsonrpc HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"originator: {ORIGINATOR}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        if not self.socket:
            raise plugin_failed("this host has no socket on which drivers could call the API")
        reader, writer = await self._connected()
        try:
            writer.write(head.encode() + body)
            answer = await reader.read()
        except OSError as error:
            raise plugin_failed(f"the API has closed the connection at {self.socket}", error.strerror) from error
        finally:
            writer.close()
        return _result(answer)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return await asyncio.open_unix_connection(self.socket)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise plugin_failed(f"the API does not answer at {self.socket}", error.strerror) from error
            await asyncio.sleep(_AGAIN)


def _result(answer: bytes) -> Any:
    _, _, body = answer.partition(b"\r\n\r\n")
    try:
        reply = json.loads(body)
    except ValueError:
        line = answer.partition(b"\r\n")[0].decode(errors="replace")
        raise plugin_failed("the API does not answer in JSON", line) from None
    error = reply.get("error")
    if error is None:
        return reply.get("result")
    if isinstance(error, list):
        raise ApiError(*error)
    raise ApiError(error["message"], *error.get("data", ()))
