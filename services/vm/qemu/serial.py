"""The text console of a QEMU domain: its serial port, shared by any number of clients.

QEMU's socket takes one client: this. It is opened when somebody wants the console, until the domain or this process
ends. QEMU's own log of the port gives the output from before.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from services.vm.console import REPLAY, Console, RecentOutput
from services.vm.qemu import event_log
from services.vm.qemu.paths import DomainPaths
from shared.errors import ApiError

TYPED_BACKLOG = 64 * 1024
"""Bytes that may wait for a guest that does not read its console; what is typed beyond them is lost, as on a UART."""


class SerialConsole(asyncio.Protocol):
    def __init__(self, paths: DomainPaths) -> None:
        self._log = paths.output
        self._console = Console(paths.console, RecentOutput(), self._typed)
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def open(cls, paths: DomainPaths) -> SerialConsole:
        try:
            _, console = await asyncio.get_running_loop().create_unix_connection(lambda: cls(paths), str(paths.serial))
        except OSError as error:
            raise ApiError("INTERNAL_ERROR", f"the serial port of the VM cannot be opened: {error}") from error
        await console._console.open()
        return console

    @property
    def path(self) -> Path:
        return self._console.path

    @property
    def connected(self) -> bool:
        return self._transport is not None

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        await self._console.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by inheritance
        # From here on output comes through the connection; what was written in the last microseconds may come twice.
        self._console.output(event_log.tail(self._log, REPLAY))

    def data_received(self, data: bytes) -> None:
        self._console.output(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def _typed(self, data: bytes) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size() < TYPED_BACKLOG:
            self._transport.write(data)
