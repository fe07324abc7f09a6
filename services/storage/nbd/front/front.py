"""Disks of a host served by NBD: follows where, and opens what clients of its process ask for.

The process ends with the service, and all that was opened for its clients with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from services.storage.nbd.front.clients import HAGGLE_WITHIN
from services.storage.nbd.front.export_name import parse
from services.storage.nbd.front.exports import Exports
from services.storage.nbd.front.process import FrontProcess
from services.storage.nbd.front.readers import Readers, Spawn
from services.storage.nbd.front.words import Gone, Listening, Opened, Refused, Serve, Wanted
from services.storage.settle import settle
from shared.bus.interface import Bus
from shared.contracts.nbd import NBD_DISK, NBD_SERVING, DiskRequest, Known, ServedDisk, Serving
from shared.errors import ApiError
from shared.logs import track_id

log = logging.getLogger("storage.nbd")

AGAIN: Final = 3.0
"""Seconds until what has failed is tried again."""
_UNKNOWN: Final = frozenset({"UUID_INVALID", "HANDLE_INVALID"})


class NbdFront:
    """`host`: uuid. `port`: 0 for any. `certificate`, `key`: as in `Serve`. `ports`: where it listens now, by address.

    `changed`: told after they have changed.
    """

    def __init__(
        self,
        host: str,
        bus: Bus,
        exports: Exports,
        port: int,
        certificate: tuple[Path, Path],
        haggle_within: float = HAGGLE_WITHIN,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._host, self._bus, self._exports = host, bus, exports
        self._port, self._certificate, self._haggle_within = port, certificate, haggle_within
        self._changed = changed
        self._serving: Serving | None = None
        self._process: FrontProcess | None = None
        self._connections: dict[int, asyncio.Task[None]] = {}
        self._spawn: Spawn
        self._following: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._failed: dict[str, str] = {}
        self._readers = Readers(host, bus)
        self.ports: dict[str, int] = {}

    def begin(self, spawn: Spawn) -> None:
        """Follows what the API says, until `close`."""
        self._spawn = spawn
        self._following = spawn(self._follow(), f"serve disks of {self._host} by NBD")
        self._readers.begin(spawn)

    async def close(self) -> None:
        """Nothing is open any more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        await self._readers.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    serving = await self._bus.call(NBD_SERVING, Known(serving=self._serving), host=self._host)
                    if serving != self._serving:
                        await self._serve(serving)
                except (ApiError, OSError) as error:
                    log.warning("host %s does not know where to serve disks by NBD: %s", self._host, error)
                    await asyncio.sleep(AGAIN)
        finally:
            await settle(self._end())

    async def _serve(self, serving: Serving) -> None:
        """A host that has never served anything needs no process."""
        self._serving = serving
        if self._listening is None and serving.addresses:
            self._listening = self._spawn(self._keep(), f"the NBD process of {self._host}")
        elif self._process is not None:
            self._order(self._process)

    def _order(self, process: FrontProcess) -> None:
        serving = self._serving or Serving()
        certificate, key = map(str, self._certificate) if serving.tls else ("", "")
        process.tell(Serve(serving.addresses, self._port, certificate, key))

    async def _keep(self) -> None:
        """The process, and another one when it has ended."""
        while True:
            try:
                self._process = process = await FrontProcess.start(self._haggle_within)
            except OSError as error:
                log.error("disks cannot be served by NBD: %s", error)
                await asyncio.sleep(AGAIN)
                continue
            try:
                self._order(process)
                await self._listen(process)
            finally:
                self._process = None
                await settle(self._cut(process))
            log.error("the process that serves disks by NBD has ended; there will be another one")
            await asyncio.sleep(AGAIN)

    async def _listen(self, process: FrontProcess) -> None:
        again: asyncio.TimerHandle | None = None
        try:
            async for word in process.words():
                match word:
                    case Listening():
                        self._tell(word)
                        if again is not None:
                            again.cancel()
                        if word.failed:
                            again = asyncio.get_running_loop().call_later(AGAIN, self._order, process)
                    case Wanted():
                        task = asyncio.create_task(self._connection(process, word), name=f"NBD client {word.peer}")
                        self._connections[word.connection] = task
                    case Gone() if word.connection in self._connections:
                        self._connections[word.connection].cancel()
        except ValueError as error:
            log.error("the process that serves disks by NBD talks nonsense: %s", error)
        finally:
            if again is not None:
                again.cancel()

    def _tell(self, word: Listening) -> None:
        for address, why in word.failed.items() - self._failed.items():
            log.error("disks are not served by NBD at %s: %s", address, why)
        self._failed = word.failed
        if word.ports != self.ports:
            log.info("disks are served by NBD at %s", ", ".join(word.ports) or "no address")
        self.ports = word.ports
        self._changed()

    # ---- a client

    async def _connection(self, process: FrontProcess, wanted: Wanted) -> None:
        """From when it asks for its export until it is cancelled, when the client is gone."""
        holds = AsyncExitStack()
        reader = self._readers.comes()
        holds.callback(self._readers.goes, reader)
        try:
            try:
                process.tell(Opened(wanted.connection, await self._open(wanted, reader, holds)))
            except (ApiError, ValueError) as error:
                log.warning("the NBD client %s gets no disk: %s", wanted.peer, _code(error))
                process.tell(_refused(wanted.connection, error))
                return
            except Exception:
                log.exception("the NBD client %s gets no disk", wanted.peer)
                process.tell(Refused(wanted.connection, "denied", "INTERNAL_ERROR"))
                return
            await asyncio.get_running_loop().create_future()
        finally:
            if self._connections.get(wanted.connection) is asyncio.current_task():
                del self._connections[wanted.connection]
            await settle(_close(holds, wanted.peer))

    async def _open(self, wanted: Wanted, reader: str, holds: AsyncExitStack) -> str:
        name = parse(wanted.export)
        request = DiskRequest(session=name.session, vdi=name.vdi, base=name.base, connection=reader)
        served: ServedDisk = await self._bus.call(NBD_DISK, request, host=self._host)
        socket = await self._exports.open(served, name.base, holds)
        log.info("the NBD client %s reads %s", wanted.peer, name, extra={"as": track_id(name.session)})
        return socket

    # ---- the end

    async def _cut(self, process: FrontProcess) -> None:
        self.ports = {}
        self._changed()
        await process.close()
        connections = list(self._connections.values())
        for each in connections:
            each.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _end(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)


async def _close(holds: AsyncExitStack, peer: str) -> None:
    try:
        await holds.aclose()
    except ApiError as error:
        log.error("the disk of the NBD client %s is not closed: %s", peer, error)


def _refused(connection: int, error: ApiError | ValueError) -> Refused:
    unknown = isinstance(error, ValueError) or error.code in _UNKNOWN
    return Refused(connection, "unknown" if unknown else "denied", _code(error))


def _code(error: ApiError | ValueError) -> str:
    """Without parameters that could be a session."""
    if isinstance(error, ValueError):
        return str(error)
    return error.code if error.code == "SESSION_INVALID" else ": ".join(filter(None, error.description))
