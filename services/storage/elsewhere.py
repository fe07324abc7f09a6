"""Calls on a disk that another host has activated: they are made there, once.

A plug-in that cannot do its work because of what another host does with a disk says which one (SMAPIv3's
Activated_on_another_host). Work that a host can do with a disk that it has activated itself is then asked of that host,
as xapi redirects its callers; what nobody may do to such a disk is VDI_IN_USE.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from shared.bus.contract import Method, Reply
from shared.bus.interface import Bus, BusError
from shared.contracts import storage as contract
from shared.errors import ApiError

log = logging.getLogger("storage.elsewhere")

FOLLOWED: Final[frozenset[str]] = frozenset(
    method.name
    for method in (
        *(contract.VDI_CLONE, contract.VDI_RESIZE, contract.VDI_STAT, contract.VDI_DESCRIBE),
        *(contract.VDI_ENABLE_CBT, contract.VDI_DISABLE_CBT, contract.VDI_CHANGED_BLOCKS),
    )
)
"""Methods (names) that the host with the disk activated can carry out."""

OnDisk = TypeVar(
    "OnDisk", contract.VdiClone, contract.VdiResize, contract.VdiRef, contract.VdiDescription, contract.VdiPair
)


class Elsewhere(ApiError):
    """VDI_IN_USE, and the host (uuid) that has the disk."""

    def __init__(self, location: str, operation: str, host: str) -> None:
        super().__init__("VDI_IN_USE", location, operation)
        self.host = host


def following(
    bus: Bus, here: str, method: Method[Any, Reply], work: Callable[[OnDisk], Awaitable[Reply]]
) -> Callable[[OnDisk], Awaitable[Reply]]:
    """`here`: uuid of this host. Whoever is asked because it has the disk asks nobody else: two hosts that disagree
    about it do not send each other round.
    """
    if method.name not in FOLLOWED:
        return work

    async def handler(request: OnDisk) -> Reply:
        try:
            return await work(request)
        except Elsewhere as found:
            if request.redirected or found.host in ("", here):
                raise
            log.info("disk %s is activated on host %s: %s is done there", request.location, found.host, method.name)
            try:
                return await bus.call(method, replace(request, redirected=True), host=found.host)
            except BusError as error:
                log.warning("host %s, which has disk %s activated: %s", found.host, request.location, error)
                raise found from error

    return handler
