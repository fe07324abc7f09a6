"""What handlers that are not built yet say against their arguments: a request that could never succeed learns why."""

from __future__ import annotations

from services.api.edge.dispatcher import HttpRefusal
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


def _vdi(request: Request) -> bool:
    """Whether the request names a VDI, by `vdi`, a reference or a uuid. Raises `HttpRefusal` 500 if there is none."""
    vdi = request.argument("vdi")
    if vdi and request.store.row("VDI", vdi) is None and request.store.ref_of_uuid("VDI", vdi) is None:
        raise HttpRefusal(500, "There is no such VDI.", error=ApiError("UUID_INVALID", "VDI", vdi))
    return bool(vdi)


def _format(request: Request) -> str:
    """Raises `HttpRefusal` 404."""
    form = request.argument("format").lower() or "raw"
    if form not in ("raw", "vhd", "tar", "qcow2"):
        raise HttpRefusal(404, bare=True, http10=True, error=internal_error(f"there is no disk format {form!r}"))
    return form


def _sr(request: Request) -> str:
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


@refusal("get_export_raw_vdi")
def get_export_raw_vdi(request: Request) -> None:
    if not _vdi(request):
        raise HttpRefusal(500, "A vdi is needed.")
    _format(request)


@refusal("put_import_raw_vdi")
def put_import_raw_vdi(request: Request) -> None:
    """Into a VDI that is there, or into a new one of an SR, which has to be raw and of a known length."""
    vdi = _vdi(request)
    if not vdi and not _sr(request):
        raise HttpRefusal(400, bare=True, error=ApiError("VDI_MISSING"))
    form = _format(request)
    if form != "raw" and ("chunked" in request.query or "chunked" in request.exchange.head.cookies()):
        raise HttpRefusal(404, bare=True, http10=True, error=internal_error(f"{form} does not come in chunks"))
    if not vdi and (form != "raw" or request.exchange.head.length is None):
        raise HttpRefusal(400, bare=True, http10=True, error=internal_error("a raw disk of a known length is needed"))


@refusal("put_import")
def put_import(request: Request) -> None:
    """Into the SR that is named, else into the pool's default."""
    store = request.store
    sr = _sr(request)
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
