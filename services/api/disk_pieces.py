"""A few bytes of a disk, read or written by the API itself: what the toolstack keeps in disks for its own use.

As any transfer's (`shared.contracts.transfer`), the bytes pass a Unix socket of this host, which has the SR attached;
the disk is open only meanwhile, and the storage service closes it however the API ends.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import uuid as uuids
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from services.api.api import Api
from services.api.decisions.rows import existing
from services.api.decisions.sm_features import plugged_pbds
from services.api.storage_hosts import disk
from shared.contracts.transfer import EXPORT, IMPORT, TRANSFER_CANCEL, TRANSFER_END, Export, Import, TransferId
from shared.errors import ApiError

log = logging.getLogger("api.disks")

PIECE: Final = 1 << 18
"""Bytes that are asked of the socket at once."""

_CHUNK: Final = struct.Struct("<QI")
"""Of a chunked stream: offset in the disk, length of the data that follows; both 0 at the end."""


def require_here(api: Api, vdi: str) -> None:
    """SR_HAS_NO_PBDS [sr] unless this host has the disk's SR attached."""
    sr = existing(api.store, "VDI", vdi)["SR"]
    if all(pbd["host"] != api.host_ref for pbd in plugged_pbds(api.store, existing(api.store, "SR", sr))):
        raise ApiError("SR_HAS_NO_PBDS", sr)


class Bytes:
    """A disk from its begin on. `size`: of the disk."""

    def __init__(self, stream: asyncio.StreamReader, size: int) -> None:
        self._stream = stream
        self._size = size
        self.position = 0

    async def read(self, length: int) -> bytes:
        """Fewer bytes only at the disk's end. Raises ConnectionError when the storage service breaks off."""
        found = bytearray()
        length = min(length, self._size - self.position)
        while len(found) < length:
            data = await self._stream.read(min(PIECE, length - len(found)))
            if not data:
                raise ConnectionError(f"the disk's bytes end at {self.position + len(found)} of {self._size}")
            found += data
        self.position += len(found)
        return bytes(found)

    async def skip_to(self, offset: int) -> None:
        """Behind the position. Nothing is kept."""
        while self.position < offset and await self.read(min(PIECE, offset - self.position)):
            pass


@asynccontextmanager
async def reading(api: Api, vdi: str) -> AsyncIterator[Bytes]:
    """The disk's bytes, as many as are wanted; it is closed afterwards. Raises what opening a disk raises, OSError."""
    require_here(api, vdi)
    place, host = disk(api, vdi), api.host_uuid
    wanted = Export(
        dp=f"task/{uuids.uuid4()}",
        sr=place.sr,
        location=place.location,
        uuid=api.uuid_of("VDI", vdi),
        format="raw",
        process=api.process,
    )
    size = existing(api.store, "VDI", vdi)["virtual_size"]
    prepared = await api.bus.call(EXPORT, wanted, host=host)
    try:
        stream, writer = await asyncio.open_unix_connection(prepared.path)
        try:
            yield Bytes(stream, size if prepared.length is None else prepared.length)
        finally:
            writer.close()
    finally:
        await _cancel(api, prepared.transfer)


async def write(api: Api, vdi: str, parts: AsyncIterable[tuple[int, bytes]]) -> None:
    """Parts with their places; what is elsewhere stays. All of it is durable, and the disk closed, when this returns.

    The order in which they reach the disk is not that in which they are given. Raises what opening and writing raise,
    OSError.
    """
    require_here(api, vdi)
    place, host = disk(api, vdi), api.host_uuid
    wanted = Import(
        dp=f"task/{uuids.uuid4()}",
        sr=place.sr,
        location=place.location,
        format="raw",
        chunked=True,
        differences=True,
        process=api.process,
    )
    prepared = await api.bus.call(IMPORT, wanted, host=host)
    try:
        _, writer = await asyncio.open_unix_connection(prepared.path)
        try:
            async for offset, data in parts:
                writer.write(_CHUNK.pack(offset, len(data)))
                writer.write(data)
                await writer.drain()
            writer.write(_CHUNK.pack(0, 0))
            await writer.drain()
            await api.bus.call(TRANSFER_END, TransferId(transfer=prepared.transfer), host=host)
        except ConnectionError:
            # The storage service has broken off: how the transfer has ended tells why.
            await api.bus.call(TRANSFER_END, TransferId(transfer=prepared.transfer), host=host)
            raise
        finally:
            writer.close()
    except BaseException:
        await _cancel(api, prepared.transfer)
        raise


async def _cancel(api: Api, transfer: str) -> None:
    """Also when this is cancelled meanwhile: the disk is closed. One that has ended stays as it is."""
    work = asyncio.ensure_future(api.bus.call(TRANSFER_CANCEL, TransferId(transfer=transfer), host=api.host_uuid))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
    except ApiError as error:
        log.warning("a transfer goes on until it misses its client: %s", error)
