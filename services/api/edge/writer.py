"""Writes to one client at its pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from services.api.edge.clock import TURN


class Writer:
    """`writable`: the client takes what is sent; one that takes nothing for `patience` seconds is sent away."""

    __slots__ = ("_gone", "_patience", "_resumed", "_unread", "transport", "writable")

    def __init__(self, transport: asyncio.Transport, patience: float) -> None:
        self._patience = patience
        self._gone = False
        self._unread: asyncio.TimerHandle | None = None
        self._resumed: asyncio.Future[None] | None = None
        self.transport = transport
        self.writable = True

    # ---- what the transport tells

    def pause(self) -> None:
        self.writable = False
        self._unread = asyncio.get_running_loop().call_later(self._patience, self.transport.abort)

    def resume(self) -> None:
        self.writable = True
        self._wake()

    def lost(self) -> None:
        """The client is gone."""
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        """Whoever waits for the client to take what was sent goes on."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    # ---- what is sent

    def write(self, data: bytes) -> bool:
        """False: there is nobody any more to send it to."""
        if self._gone or self.transport.is_closing():
            return False
        self.transport.write(data)
        return True

    async def write_all(self, slices: Iterable[bytes]) -> bool:
        """Sends one after the other, as the client takes them; others get their turn in between. False: it has gone."""
        begun = time.perf_counter()
        for data in slices:
            if not self.write(data):
                return False
            if not self.writable:
                self._resumed = asyncio.get_running_loop().create_future()
                await self._resumed
            elif time.perf_counter() - begun > TURN:
                await asyncio.sleep(0)
            else:
                continue
            begun = time.perf_counter()
        return not self._gone
