"""What handlers that are not built yet say against their arguments: a request that could never succeed learns why."""

from __future__ import annotations

from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.disk_arguments import sr_named
from services.api.handlers.handler import Request, refusal
from shared.errors import ApiError, internal_error


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


@refusal("rrd")
def put_rrd(request: Request) -> None:
    """A host's is taken to be archived only, by the coordinator."""
    uuid, archive = request.query["uuid"], "archive" in request.query
    if archive:
        request.on_coordinator()
    if request.store.ref_of_uuid("VM", uuid) is not None:
        return
    if request.store.ref_of_uuid("host", uuid) is None:
        raise HttpRefusal(404, bare=True, error=ApiError("UUID_INVALID", "VM", uuid))
    if not archive:
        raise HttpRefusal(400, bare=True, error=internal_error("a host's performance data can only be archived"))


@refusal("put_import")
def put_import(request: Request) -> None:
    """Into the SR that is named, else into the pool's default."""
    store = request.store
    sr = sr_named(request)
    if not sr:
        sr = str(next(iter(store.rows("pool").values()))["default_SR"])
        if store.row("SR", sr) is None:
            raise ApiError("DEFAULT_SR_NOT_FOUND", sr)
    if store.get("SR", sr, "content_type") == "iso":
        raise HttpRefusal(400, bare=True, error=ApiError("SR_OPERATION_NOT_SUPPORTED"))


@refusal("connect_remotecmd")
def connect_remotecmd(request: Request) -> None:
    if request.query.get("cmd") != "rsync":
        raise HttpRefusal(500, "There is no such command.")


@refusal("get_wlb_report")
def get_wlb_report(request: Request) -> None:
    if "report" not in request.query:
        raise HttpRefusal(500, "A report is needed.")
