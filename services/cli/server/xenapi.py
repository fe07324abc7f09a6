"""The CLI service as a XenAPI client of its own host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from shared.contracts.api import XenApiAnswer, XenApiCall
from shared.errors import ApiError

ORIGINATOR = "cli"
API_VERSION = "2.23"
LOGOUT_TIMEOUT = 10.0
"""Seconds that logging out may take when the client has gone."""

log = logging.getLogger("cli")

Transport = Callable[[XenApiCall], Awaitable[XenApiAnswer]]


class XenApi:
    """A session. Values are those of JSON-RPC. Raises `ApiError` for what the API refuses."""

    def __init__(self, transport: Transport, *, trusted: bool = False, address: str = "", session: str = "") -> None:
        self.session = session
        self._transport = transport
        self._trusted = trusted
        self._address = address

    async def call(self, method: str, *params: Any) -> Any:
        return await self._call(method, [self.session, *params])

    async def login(self, user: str, password: str, *, local: bool = False) -> None:
        """`local`: an emergency login that needs no coordinator."""
        if local:
            self.session = await self._call("session.slave_local_login_with_password", [user, password])
        else:
            given = [user, password, API_VERSION, ORIGINATOR]
            self.session = await self._call("session.login_with_password", given)

    async def logout(self, *, local: bool = False) -> None:
        """Ends the session; if that fails the session expires by itself, and the log says so."""
        session, self.session = self.session, ""
        if not session:
            return
        try:
            method = "session.local_logout" if local else "session.logout"
            async with asyncio.timeout(LOGOUT_TIMEOUT):
                await self._call(method, [session])
        except (ApiError, TimeoutError) as error:
            log.warning("cannot log out: %s", error)

    def within(self, session: str) -> XenApi:
        """The same client in another session."""
        return XenApi(self._transport, trusted=self._trusted, address=self._address, session=session)

    async def _call(self, method: str, params: list[Any]) -> Any:
        request = XenApiCall(
            method=method, params=params, trusted=self._trusted, user_agent="xe-cli", address=self._address
        )
        answer = await self._transport(request)
        if answer.error:
            raise ApiError(*answer.error)
        return answer.value
