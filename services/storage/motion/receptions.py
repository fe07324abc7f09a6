"""Disks of this host that other hosts write to: opened and served, and closed again however that ends."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.storage.host import HostStorage
from services.storage.nbd.credentials import Identity
from services.storage.nbd.doors import opened
from services.storage.nbd.server import PROGRAMS, NbdServer, Programs
from services.storage.plugins.errors import in_use
from services.storage.settle import settle
from shared.contracts.motion import Receive, ReceiveEnd, Receiving
from shared.contracts.storage import Backend, DiskOpen, HandOver
from shared.errors import ApiError, internal_error

log = logging.getLogger("storage.motion")

_PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Of a host: the address at which it serves others, a folder for files and sockets, what it shows, programs.

    `patience`: seconds that another host has to come.
    """

    address: str
    folder: Path
    identity: Identity
    programs: Programs = PROGRAMS
    patience: float = _PATIENCE


class Reception:
    """One disk. `served`: where; or why it is not. `over` is done when all is closed, with the failure, if any."""

    def __init__(self, request: Receive) -> None:
        self.request = request
        self.held = asyncio.Event()
        """The peer has come: the disk is served until it leaves."""
        self.served: asyncio.Future[Receiving] = asyncio.get_running_loop().create_future()
        self.over: asyncio.Task[ApiError | None]
        self._keep = self._kept = ""
        self._ended = asyncio.Event()

    async def end(self, keep: str = "") -> None:
        """All is closed then. Raises what closing raises; INTERNAL_ERROR for one that was to be kept when it was being
        closed already.
        """
        self._keep = keep
        self._ended.set()
        await asyncio.wait({self.over})
        failure = self.over.result()
        if failure is not None:
            raise failure
        if keep and self._kept != keep:
            raise _not_kept(self.request.dp, keep)

    async def run(self, host: HostStorage, place: Place) -> ApiError | None:
        holds = AsyncExitStack()
        refusal = internal_error(f"{self.request.dp} was ended before it was served")
        try:
            await self._serve(host, place, holds)
        except ApiError as error:
            refusal = error
        except OSError as error:
            refusal = internal_error(f"{self.request.dp} cannot be served: {error}")
        if not self.served.done():
            self.served.set_exception(refusal)
            self.served.exception()  # nobody need ask
        try:
            await holds.aclose()
            await self._let_go(host)
        except ApiError as error:
            log.error("%s, which host %s wrote to, is not closed: %s", self.request.dp, self.request.source, error)
            return error
        return None

    async def _let_go(self, host: HostStorage) -> None:
        request = self.request
        if self._keep:
            wanted = HandOver(dp=self._keep, other=request.dp, sr=request.sr, location=request.location)
            self._kept = self._keep
            await host.datapaths.hand_over(wanted)
        else:
            await host.datapaths.close([request.dp])

    async def _serve(self, host: HostStorage, place: Place, holds: AsyncExitStack) -> None:
        """Until the disk is to be closed."""
        request = self.request
        disk = DiskOpen(dp=request.dp, sr=request.sr, location=request.location, writable=True)
        [backend] = await host.datapaths.open([disk])
        size = await _size(host, request)
        if backend.format == "none":
            self.served.set_result(Receiving(size=size))
            await self._ended.wait()
            return
        server = await self._listen(backend, size, place, holds)
        leaving = asyncio.create_task(server.ended())
        wanted = asyncio.create_task(self._ended.wait())
        held = asyncio.create_task(self.held.wait())
        try:
            done, _ = await asyncio.wait({leaving, wanted, held}, timeout=place.patience, return_when=_FIRST)
            if not done:
                log.warning("host %s does not come to write to disk %s", request.source, request.location)
            elif done == {held}:
                await asyncio.wait({leaving, wanted}, return_when=_FIRST)
            if leaving.done() and not wanted.done():
                log.warning("host %s does not write to disk %s any more", request.source, request.location)
        finally:
            for each in (leaving, wanted, held):
                each.cancel()

    async def _listen(self, backend: Backend, size: int, place: Place, holds: AsyncExitStack) -> NbdServer:
        served = opened(
            *(backend, place.folder, place.address, place.identity), self.request.certificate, place.programs
        )
        door, server = await holds.enter_async_context(served)
        self.served.set_result(Receiving(size, door.address, door.port, door.export, door.certificate, door.name))
        log.info("disk %s is served to host %s", self.request.location, self.request.source)
        return server


_FIRST: Final = asyncio.FIRST_COMPLETED


def _not_kept(dp: str, keep: str) -> ApiError:
    return internal_error(f"{dp} is not open: its disk is not handed over to {keep}")


async def _size(host: HostStorage, request: Receive) -> int:
    plugin, handle = host.repositories.find(request.sr)
    async with host.locks.disks([(request.sr, request.location)]):
        return (await plugin.volume.stat(handle, request.location)).virtual_size


class Receptions:
    """Those of one host, by datapath."""

    def __init__(self, host: HostStorage, place: Place) -> None:
        self._host, self._place = host, place
        self._running: dict[str, Reception] = {}

    async def receive(self, request: Receive) -> Receiving:
        """Asked again, it begins anew. Raises what opening a disk raises; VDI_IN_USE while another host writes to it;
        INTERNAL_ERROR.
        """
        there = self._running.get(request.dp)
        if there is not None and there.request.source != request.source:
            raise in_use(request.location, "attach")
        await self.end(ReceiveEnd(dp=request.dp))
        reception = Reception(request)
        work = reception.run(self._host, self._place)
        reception.over = asyncio.create_task(work, name=f"serve {request.dp} to {request.source}")
        self._running[request.dp] = reception
        reception.over.add_done_callback(lambda _: self._drop(reception))
        try:
            await asyncio.wait({reception.served})
        except asyncio.CancelledError:
            await settle(reception.end())
            raise
        return reception.served.result()

    def _drop(self, reception: Reception) -> None:
        if self._running.get(reception.request.dp) is reception:
            del self._running[reception.request.dp]

    async def hold(self, dp: str) -> None:
        """Raises INTERNAL_ERROR for a disk that is not served (any more)."""
        reception = self._running.get(dp)
        if reception is None:
            raise internal_error(f"{dp} is not served")
        reception.held.set()

    async def end(self, request: ReceiveEnd) -> None:
        """One that has ended by itself is closed. Raises INTERNAL_ERROR when that should have been kept."""
        reception = self._running.get(request.dp)
        if reception is not None:
            await settle(reception.end(request.keep))
        elif request.keep:
            raise _not_kept(request.dp, request.keep)
        else:
            await self._host.datapaths.close([request.dp])

    async def close(self) -> None:
        """The service stops."""
        await asyncio.gather(*(each.end() for each in list(self._running.values())), return_exceptions=True)
