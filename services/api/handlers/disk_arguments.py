"""Arguments of the handlers that move disks: which disk or SR, in which format, and whether this host can do it."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from services.api.decisions.rows import Record, existing
from services.api.decisions.sm_features import plugged_pbds
from services.api.decisions.sr_hosts import host_for
from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.handler import Request
from shared.contracts.transfer import Format
from shared.errors import ApiError, internal_error

CONTENT_TYPES: Final[dict[Format, str]] = {
    "raw": "application/octet-stream",
    "vhd": "application/vhd",
    "tar": "application/x-tar",
    "qcow2": "application/x-qemu-disk",
}
TAR_PREFIX: Final = "vdi"
"""Folder of the entries of a disk that comes as a tar."""


def vdi_named(request: Request, name: str = "vdi") -> str:
    """The VDI that an argument names, by reference or uuid; "" without it. Raises `HttpRefusal` 500."""
    given = request.argument(name)
    if not given or request.store.row("VDI", given) is not None:
        return given
    found = request.store.ref_of_uuid("VDI", given)
    if found is None:
        raise HttpRefusal(500, "There is no such VDI.", error=ApiError("UUID_INVALID", "VDI", given))
    return found


def sr_named(request: Request) -> str:
    """The SR that `sr_id` or `sr_uuid` name, "" without both. Raises HANDLE_INVALID; `HttpRefusal` 500."""
    ref, uuid = request.argument("sr_id"), request.argument("sr_uuid")
    if ref:
        if request.store.row("SR", ref) is None:
            raise ApiError("HANDLE_INVALID", "SR", ref)
        return ref
    found = request.store.ref_of_uuid("SR", uuid) if uuid else ""
    if found is None:
        raise HttpRefusal(500, "There is no such SR.", error=ApiError("UUID_INVALID", "SR", uuid))
    return found


def disk_format(request: Request) -> Format:
    """Raises `HttpRefusal` 404."""
    given = request.argument("format").lower() or "raw"
    for known in CONTENT_TYPES:
        if known == given:
            return known
    raise HttpRefusal(404, bare=True, http10=True, error=internal_error(f"there is no disk format {given!r}"))


def host_here(request: Request) -> str:
    """Reference of the host whose address or socket the client used."""
    return request.store.ref_of_uuid("host", request.caller.host) or request.api.host_ref


def where_sr_is(request: Request, sr: str) -> None:
    """Sends the client to a host that has the SR attached, unless this one has. Raises `HttpRefusal` 302;
    SR_HAS_NO_PBDS, HOST_OFFLINE.
    """
    store, head = request.store, request.exchange.head
    if any(pbd["host"] == host_here(request) for pbd in plugged_pbds(store, existing(store, "SR", sr))):
        return
    address = store.get("host", host_for(store, sr), "address")
    target = quote(head.path) + (f"?{head.query_text}" if head.query_text else "")
    raise HttpRefusal(302, location=request.api.https_url(address, target))


def managed(request: Request, vdi: str) -> Record:
    """The VDI's row. Raises VDI_NOT_MANAGED for a hidden node of a tree."""
    row = existing(request.store, "VDI", vdi)
    if not row["managed"]:
        raise ApiError("VDI_NOT_MANAGED", vdi)
    return row
