"""What handlers that are not built yet say against their arguments: a request that could never succeed learns why."""

from __future__ import annotations

from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.handler import Request, refusal
from shared.errors import ApiError


@refusal("get_vncsnapshot")
def get_vncsnapshot(request: Request) -> None:
    query, store = request.query, request.store
    if "ref" not in query and "uuid" not in query:
        raise HttpRefusal(500, "A ref or uuid of a console or VM is needed.")
    uuid = query.get("uuid", "")
    ref = query.get("ref") or store.ref_of_uuid("console", uuid) or store.ref_of_uuid("VM", uuid) or ""
    if store.row("console", ref) is None and store.row("VM", ref) is None:
        raise HttpRefusal(500, "There is no such console.")


@refusal("vm_rrd")
@refusal("get_vm_rrds")
def vm_rrd(request: Request) -> None:
    uuid = request.query["uuid"]
    if request.store.ref_of_uuid("VM", uuid) is None:
        raise HttpRefusal(500, "There is no such VM.", error=ApiError("UUID_INVALID", "VM", uuid))


@refusal("sr_rrd")
def sr_rrd(request: Request) -> None:
    uuid = request.query["uuid"]
    if request.store.ref_of_uuid("SR", uuid) is None:
        raise HttpRefusal(404, bare=True, http10=True, error=ApiError("UUID_INVALID", "SR", uuid))


@refusal("get_export_raw_vdi")
def get_export_raw_vdi(request: Request) -> None:
    """`vdi` is a reference or a uuid."""
    vdi = request.argument("vdi")
    if request.store.row("VDI", vdi) is None and request.store.ref_of_uuid("VDI", vdi) is None:
        raise ApiError("HANDLE_INVALID", "VDI", vdi)
    form = request.argument("format").lower() or "raw"
    if form not in ("raw", "vhd", "tar", "qcow2"):
        text = f"there is no disk format {form!r}"
        raise HttpRefusal(404, bare=True, error=ApiError("INTERNAL_ERROR", text))
