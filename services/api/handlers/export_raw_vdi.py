"""`GET /export_raw_vdi`: a disk's content, whole or as what differs from another (storage 5.2, wire-protocol 9.3)."""

from __future__ import annotations

from services.api.decisions.rows import existing
from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.disk_arguments import (
    CONTENT_TYPES,
    TAR_PREFIX,
    disk_format,
    managed,
    vdi_named,
    where_sr_is,
)
from services.api.handlers.disk_streams import send
from services.api.handlers.handler import Request, attachment, handler
from shared.contracts.transfer import Export, Prepared
from shared.errors import internal_error

DELTAS = ("vhd", "qcow2")
"""Formats in which a disk can lack what its base has; in the others a base does not matter."""


def _possible(request: Request) -> None:
    """Raises `HttpRefusal`."""
    vdi = vdi_named(request)
    if not vdi:
        raise HttpRefusal(500, "A vdi is needed.")
    disk_format(request)
    where_sr_is(request, existing(request.store, "VDI", vdi)["SR"])


@handler("get_export_raw_vdi", before=_possible)
async def get_export_raw_vdi(request: Request) -> None:
    """The reply has a length where the storage service knows it; a stream that fails ends in a reset."""
    row, form = managed(request, vdi_named(request)), disk_format(request)
    base = vdi_named(request, "base") if form in DELTAS else ""
    below = managed(request, base) if base else None
    if below is not None and below["SR"] != row["SR"]:
        raise internal_error("a disk and the base that it is compared with have to be in one SR")
    message = Export(
        dp=f"task/{request.task}",
        sr=request.api.uuid_of("SR", row["SR"]),
        location=row["location"],
        uuid=row["uuid"],
        format=form,
        base=below["location"] if below is not None else "",
        base_uuid=below["uuid"] if below is not None else "",
        prefix=TAR_PREFIX,
    )

    async def begin(prepared: Prepared) -> None:
        length = [("content-length", str(prepared.length))] if prepared.length is not None else []
        await request.stream.start(
            [
                *length,
                ("connection", "close"),
                ("cache-control", "no-cache, no-store"),
                ("accept-ranges", "none"),
                ("task-id", request.task),
                ("content-type", CONTENT_TYPES[form]),
                attachment(f"{row['uuid']}.{form}"),
            ]
        )

    await send(request, message, begin)
