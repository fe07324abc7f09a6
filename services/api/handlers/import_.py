"""`/import_metadata`: VMs whose disks are here already."""

from __future__ import annotations

import asyncio
import uuid as uuids
from collections.abc import Sequence
from typing import Final

from services.api import roles
from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.export import toolstack
from services.api.handlers.handler import Request, handler
from services.api.metadata import imported, ova, tar
from services.api.metadata.imported import Options, Plan
from services.api.wire import result
from shared.contracts.db import Change, MapPut, Precondition, Unchanged, Update
from shared.datamodel import model
from shared.datamodel.types import RefType, SetType
from shared.errors import ApiError
from shared.store import Store

_DISK: Final = "vdi:"
"""How arguments begin that name the disk here for one of the document."""


def _possible(request: Request) -> None:
    """Raises `HttpRefusal` 302, 501."""
    request.on_coordinator()
    if request.flag("live"):
        raise HttpRefusal(
            501, "VMs that run are not imported yet.", error=ApiError("NOT_IMPLEMENTED", request.row.permission)
        )


@handler("put_import_metadata", before=_possible)
async def put_import_metadata(request: Request) -> None:
    """The reply begins before the body is read; how it went is the task's to tell. Its result is the VMs' references.

    With `dry_run` nothing is written, and there are no references.
    """
    await request.accept(
        [
            ("task-id", request.task),
            ("connection", "close"),
            ("cache-control", "no-cache, no-store"),
            ("content-type", "application/octet-stream"),
        ]
    )
    document = await asyncio.to_thread(ova.read, await tar.read_document(request.stream.read))
    imported.check_version(document, toolstack(request.api).xapi)
    disks = {key.removeprefix(_DISK): value for key, value in request.query.items() if key.startswith(_DISK)}
    options = Options(restore=request.flag("restore"), force=request.flag("force"), disks=disks)
    dry = request.flag("dry_run")

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], list[str]]:
        plan = imported.planned(store, document, options, lambda: str(uuids.uuid4()))
        _check_keys(request, plan)
        return ([], [], []) if dry else (plan.changes, _unchanged(store, plan.replaced), plan.vms)

    async with request.api.turns.of("bridges"):  # as every new network
        vms = await request.api.database.decide(decision)
    text = result.to_text(SetType(RefType("VM")), vms)
    if request.task:
        complete = MapPut(cls="task", ref=request.task, field="other_config", key="object_creation", value="complete")
        request.ending += [complete, Update(cls="task", ref=request.task, fields={"result": text})]


def _unchanged(store: Store, vms: list[str]) -> list[Precondition]:
    rows = ((ref, store.find("VM", ref)) for ref in vms)
    return [Unchanged(cls="VM", ref=ref, generation=row.modified) for ref, row in rows if row is not None]


def _check_keys(request: Request, plan: Plan) -> None:
    """Maps of new VMs with guarded keys need the role that VM.create would. Raises RBAC_PERMISSION_DENIED."""
    if request.session:
        for fields in plan.new:
            roles.check(request.api, request.session, model.messages["VM.create"], (fields,))
