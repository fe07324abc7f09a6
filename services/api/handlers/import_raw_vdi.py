"""`PUT /import_raw_vdi`: a disk's content, into a VDI or a new one of an SR (storage 5.2, wire-protocol 9.3)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from services.api import member
from services.api.decisions import unfinished_disks
from services.api.decisions.rows import existing
from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.disk_arguments import (
    TAR_PREFIX,
    disk_format,
    managed,
    sr_named,
    vdi_named,
    where_sr_is,
)
from services.api.handlers.disk_streams import receive, settled
from services.api.handlers.handler import Request, handler
from services.api.wire import result
from shared.contracts.db import MapDrop, Update
from shared.contracts.transfer import Import, Prepared
from shared.datamodel.types import RefType
from shared.errors import ApiError, internal_error

log = logging.getLogger("api.disks")


def _in_chunks(request: Request) -> bool:
    """That the argument is there is enough; this is not HTTP's chunked encoding."""
    return "chunked" in request.query or "chunked" in request.exchange.head.cookies()


def _possible(request: Request) -> None:
    """Raises `HttpRefusal`. A new VDI has to be raw and of a known length."""
    vdi = vdi_named(request)
    sr = existing(request.store, "VDI", vdi)["SR"] if vdi else sr_named(request)
    if not sr:
        raise HttpRefusal(400, bare=True, error=ApiError("VDI_MISSING"))
    form = disk_format(request)
    if form != "raw" and _in_chunks(request):
        raise HttpRefusal(404, bare=True, http10=True, error=internal_error(f"{form} does not come in chunks"))
    if not vdi and (form != "raw" or not request.stream.length):
        raise HttpRefusal(400, bare=True, http10=True, error=internal_error("a raw disk of a known length is needed"))
    where_sr_is(request, sr)


@handler("put_import_raw_vdi", before=_possible)
async def put_import_raw_vdi(request: Request) -> None:
    """The task's result is the VDI. Clients without a task learn of a failure by a reset."""
    form = disk_format(request)
    if request.stream.length == 0:
        await _empty(request, form)
        return
    vdi = vdi_named(request)
    async with _target(request, vdi) as target:
        row = managed(request, target)
        message = Import(
            dp=f"task/{request.task}",
            sr=request.api.uuid_of("SR", row["SR"]),
            location=row["location"],
            format=form,
            length=None if _in_chunks(request) else request.stream.length,
            chunked=_in_chunks(request),
            differences=form == "qcow2",  # which does not say whether it is a delta: what it has not is left alone
            prefix=TAR_PREFIX if form == "tar" else "",
        )

        async def begin(_: Prepared) -> None:
            await _accept(request)

        await receive(request, message, begin)
    _tell(request, target)


async def _empty(request: Request, form: str) -> None:
    """What clients send to find out where to send the rest: nothing is touched. A raw image may be empty."""
    vdi = vdi_named(request)
    managed(request, vdi)
    await _accept(request)
    if request.given_task and form != "raw":
        raise ApiError("IMPORT_ERROR", f"an empty body is no {form}")
    _tell(request, vdi)


async def _accept(request: Request) -> None:
    await request.accept(
        [
            ("connection", "close"),
            ("cache-control", "no-cache, no-store"),
            ("task-id", request.task),
            ("content-type", "application/octet-stream"),
        ]
    )


def _tell(request: Request, vdi: str) -> None:
    if request.task:
        text = result.to_text(RefType("VDI"), vdi)
        request.ending.append(Update(cls="task", ref=request.task, fields={"result": text}))


@asynccontextmanager
async def _target(request: Request, vdi: str) -> AsyncIterator[str]:
    """The VDI that is named, or a new one, which goes again if the import fails."""
    if vdi:
        yield vdi
        return
    made = await _call(request, "VDI.create", _record(request))
    try:
        await member.arrival(request.api, "VDI", made)
        yield made
        finished = MapDrop(cls="VDI", ref=made, field="other_config", key=unfinished_disks.MARK)
        request.ending.append(finished)
    except BaseException:
        await _destroy(request, made)
        raise


def _record(request: Request) -> dict[str, Any]:
    return {
        "name_label": "Imported VDI",
        "name_description": "",
        "SR": sr_named(request),
        "virtual_size": request.stream.length,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {unfinished_disks.MARK: unfinished_disks.upload(request.api.host_uuid, request.api.process)},
        "xenstore_data": {},
        "sm_config": {},
        "tags": [],
    }


async def _destroy(request: Request, vdi: str) -> None:
    try:
        await settled(_call(request, "VDI.destroy", vdi))
    except ApiError as error:
        log.error("the VDI %s of a failed import stays: %s", vdi, error)


async def _call(request: Request, method: str, *params: Any) -> Any:
    """With the coordinator, as the client; root's connections without a session act as this host."""
    api, caller = request.api, request.caller
    if request.session:
        return await member.ask(api, caller, method, [request.session, *params])
    return await member.ask_as_host(api, caller, method, params)
