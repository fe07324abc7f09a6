"""Motion of disks between hosts, as the storage service of a host has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from services.storage.host import HostStorage
from services.storage.journal import Journal
from services.storage.motion.mirrors import Mirrors
from services.storage.motion.receptions import Place, Receptions
from services.storage.motion.sending import Sending
from services.storage.nbd.credentials import Identity
from services.storage.nbd.server import Programs
from services.storage.options import StorageOptions
from shared.bus.contract import Empty, Method
from shared.bus.interface import Bus
from shared.contracts import motion

Handler = Callable[[Any], Awaitable[Any]]


class Motion:
    """`sending`: for copies."""

    def __init__(self, host: HostStorage, bus: Bus, journal: Journal, place: Place) -> None:
        self.sending = Sending(bus, place)
        self._receptions = Receptions(host, place)
        self._mirrors = Mirrors(host.host, bus, journal, self.sending)

    async def clear(self) -> None:
        """Until cancelled: what is left of mirrors. To be run when the service answers."""
        await self._mirrors.clear()

    async def close(self) -> None:
        await self._mirrors.close()
        await self._receptions.close()

    def table(self) -> list[tuple[Method[Any, Any], Handler]]:
        return [
            (motion.RECEIVE, self._receptions.receive),
            (motion.RECEIVE_HELD, self._held),
            (motion.RECEIVE_END, self._received),
            (motion.MIRROR_START, self._started),
            (motion.MIRROR_STATE, lambda request: self._mirrors.state(request.dp)),
            (motion.MIRROR_END, self._ended),
        ]

    async def _held(self, request: motion.Reception) -> Empty:
        await self._receptions.hold(request.dp)
        return Empty()

    async def _received(self, request: motion.ReceiveEnd) -> Empty:
        await self._receptions.end(request)
        return Empty()

    async def _started(self, request: motion.Mirror) -> Empty:
        await self._mirrors.start(request)
        return Empty()

    async def _ended(self, request: motion.MirrorEnd) -> Empty:
        await self._mirrors.end(request)
        return Empty()


def place(options: StorageOptions, host: str, address: str, folder: Path, programs: Programs) -> Place:
    """`address`: the host's (uuid). `folder`: for sockets."""
    certificates = Path(options.nbd_certificates) if options.nbd_certificates else None
    return Place(address, folder, Identity(certificates, host), programs, options.client_patience)
