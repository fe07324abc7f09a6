"""The process that NBD clients talk to: listeners, and each connection up to its end. No more clients than upstream's.

It never opens a disk: it asks the service, and passes bytes between the client and the qemu-nbd that it is shown.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from services.storage.nbd.front.certificate import Certificate
from services.storage.nbd.front.haggling import Haggling
from services.storage.nbd.front.pipe import Lost, Pipe
from services.storage.nbd.front.words import Gone, Listening, Opened, Refused, Serve, Told, Wanted
from services.storage.nbd.protocol import ProtocolError

log = logging.getLogger("storage.nbd")

CLIENTS: Final = 16
"""Connections of one host at a time."""
HAGGLE_WITHIN: Final = 30.0
"""Seconds that a client may take until its requests begin."""
_KEEPALIVE: Final = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 4}
"""A client that is silent for 2 minutes and does not answer its kernel's probes is gone."""


class Clients:
    """`tell`: what the service is to know."""

    def __init__(self, tell: Callable[[Told], None], within: float = HAGGLE_WITHIN) -> None:
        self._tell, self._within = tell, within
        self._certificate: Certificate | None = None
        self._listeners: dict[str, asyncio.Server] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._asking: dict[int, asyncio.Future[Opened | Refused]] = {}
        self._numbers = count(1)

    async def serve(self, order: Serve) -> Listening:
        """Connections that there are go on. What cannot be listened at is said, and can be tried again."""
        self._certificate = Certificate((order.certificate, order.key)) if order.certificate else None
        for address in self._listeners.keys() - set(order.addresses):
            self._listeners.pop(address).close()
        failed: dict[str, str] = {}
        for address in order.addresses:
            if address not in self._listeners:
                try:
                    self._listeners[address] = await asyncio.get_running_loop().create_server(
                        lambda: Pipe(self._arrived), address, order.port, reuse_address=True
                    )
                except OSError as error:
                    failed[address] = error.strerror or str(error)
        ports = {address: server.sockets[0].getsockname()[1] for address, server in self._listeners.items()}
        return Listening(ports, failed)

    def answer(self, word: Opened | Refused) -> None:
        asking = self._asking.get(word.connection)
        if asking is not None and not asking.done():
            asking.set_result(word)

    # ---- one connection

    def _arrived(self, client: Pipe) -> None:
        if len(self._connections) >= CLIENTS:
            log.warning("a client is sent away: there are %d", CLIENTS)
            client.close()
            return
        task = asyncio.create_task(self._attend(client))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _attend(self, client: Pipe) -> None:
        number, peer = next(self._numbers), _peer(client)
        asked = False

        async def ask(export: str) -> Opened | Refused:
            nonlocal asked
            asked = True
            self._asking[number] = asyncio.get_running_loop().create_future()
            self._tell(Wanted(number, export, peer))
            return await self._or_lost(client, self._asking[number])

        try:
            tls = self._certificate.context() if self._certificate is not None else None
            backend = await Haggling(client, tls, ask, self._within).run()
            if backend is not None:
                client.join(backend)
                await asyncio.wait([client.lost])
                await asyncio.wait([backend.lost])
        except (Lost, ProtocolError, TimeoutError, OSError) as error:
            log.info("the client %s is sent away: %s", peer, str(error) or type(error).__name__)
        finally:
            client.close()
            if asked:
                self._asking.pop(number, None)
                self._tell(Gone(number))

    @staticmethod
    async def _or_lost(client: Pipe, asking: asyncio.Future[Opened | Refused]) -> Opened | Refused:
        """Raises `Lost` as soon as nobody waits for the answer."""
        either: list[asyncio.Future[Any]] = [asking, client.lost]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise Lost
        return asking.result()


def _peer(client: Pipe) -> str:
    own: socket.socket = client.transport.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        own.setsockopt(socket.IPPROTO_TCP, option, value)
    peer = client.transport.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if peer else "?"
