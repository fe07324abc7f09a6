"""What the hosts of this process ask before they serve disks by NBD (`shared.contracts.nbd`)."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from services.api import nbd_readers, newest_rows, roles, sessions
from services.api.api import Api
from services.api.decisions import nbd
from services.api.decisions.rows import existing
from services.api.decisions.vdi_types import incompatible
from services.api.row_waiters import wait
from services.api.storage_hosts import disk
from shared.bus.contract import Empty
from shared.contracts.db import Delta
from shared.contracts.nbd import NBD_DISK, NBD_READING, NBD_SERVING, DiskRequest, Known, Reading, ServedDisk, Serving
from shared.contracts.storage import VdiRef
from shared.errors import ApiError
from shared.service import Service
from shared.store import Touched

PATIENCE: Final = 20.0
"""Seconds until a host hears that nothing has changed."""
_DECIDING: Final = frozenset({"network", "PIF", "host"})
"""Classes that say where disks are served."""
_NEEDED: Final = ("vbd.create", "vbd.plug")
"""Permissions to read a disk: upstream's server plugs it into the control domain in the client's name."""
_MAY_BE_NEW: Final = frozenset({"SESSION_INVALID", "UUID_INVALID"})
"""A client may come with what the coordinator has just told it, and this host is about to hear."""
_NEEDED_FOR_CHANGES: Final = "vdi.list_changed_blocks"


class NbdService:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._waiting: set[asyncio.Event] = set()
        self._stopping = False

    async def serve(self, service: Service) -> None:
        self._api.replica.watch(self._on_commit)
        for host in service.hosts:
            await service.serve(NBD_SERVING, partial(self._serving, host.uuid), host=host.uuid)
            await service.serve(NBD_DISK, partial(self._disk, host.uuid), host=host.uuid)
            await service.serve(NBD_READING, partial(self._reading, host.uuid), host=host.uuid)
        service.on_stop(self._stop)

    async def _stop(self) -> None:
        """Nobody who waits here holds up the end of the process."""
        self._stopping = True
        self._wake()

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        if any(item.cls in _DECIDING for item in touched):
            self._wake()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def _serving(self, host: str, request: Known) -> Serving:
        changed, loop = asyncio.Event(), asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        self._waiting.add(changed)
        try:
            while True:
                changed.clear()
                now = self._decided(host) if self._api.replica.ready else request.serving or Serving()
                left = deadline - loop.time()
                if now != request.serving or left <= 0 or self._stopping:
                    return now
                await wait(changed, left)
        finally:
            self._waiting.discard(changed)

    def _decided(self, host: str) -> Serving:
        ref = self._api.store.ref_of_uuid("host", host)
        return nbd.serving(self._api.store, ref) if ref is not None else Serving()

    async def _disk(self, host: str, request: DiskRequest) -> ServedDisk:
        """Raises SESSION_INVALID, RBAC_PERMISSION_DENIED, UUID_INVALID, VDI_INCOMPATIBLE_TYPE."""
        try:
            found = self._found(request)
        except ApiError as error:
            if error.code not in _MAY_BE_NEW:
                raise
            await newest_rows.arrive(self._api)
            found = self._found(request)
        ref, vdi = self._api.store.ref_of_uuid("host", host), self._api.store.ref_of_uuid("VDI", request.vdi)
        if request.connection and ref is not None and vdi is not None:
            await nbd_readers.plugged(self._api, ref, request.connection, vdi)
        return found

    async def _reading(self, host: str, request: Reading) -> Empty:
        if not self._api.replica.ready:
            raise ApiError("HOST_STILL_BOOTING")
        ref = self._api.store.ref_of_uuid("host", host)
        if ref is not None:
            await nbd_readers.unplugged(self._api, ref, request.connections)
        return Empty()

    def _found(self, request: DiskRequest) -> ServedDisk:
        sessions.find(self._api, request.session)
        for permission in (*_NEEDED, *([_NEEDED_FOR_CHANGES] if request.base else [])):
            roles.require(self._api, request.session, permission)
        found = self._located(request.vdi)
        return ServedDisk(found, self._located(request.base, metadata=True) if request.base else None)

    def _located(self, uuid: str, *, metadata: bool = False) -> VdiRef:
        """`metadata`: disks of which only the changed blocks are left will do."""
        ref = self._api.store.ref_of_uuid("VDI", uuid)
        if ref is None:
            raise ApiError("UUID_INVALID", "VDI", uuid)
        row = existing(self._api.store, "VDI", ref)
        if row["type"] == "cbt_metadata" and not metadata:
            raise incompatible(ref, row["type"])
        return disk(self._api, ref)
