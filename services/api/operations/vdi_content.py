"""VDI messages about what is in a disk. The storage service does not read disks yet: what rows refuse is refused."""

from __future__ import annotations

from typing import Any

from services.api.allowed import CHECKS
from services.api.call import Call
from services.api.decisions import features
from services.api.decisions.liveness import require_live
from services.api.decisions.nbd import addresses
from services.api.decisions.rows import existing
from services.api.decisions.vdi_types import incompatible
from services.api.operation import Lock, Refuse, operation
from services.api.storage_hosts import host_for
from shared.errors import ApiError
from shared.store import Store


def _sr_allows(op: str, argument: int = 0) -> Refuse:
    """The SR of that argument is asked before the disk itself."""

    def refuse(store: Store, arguments: tuple[Any, ...]) -> ApiError | None:
        return CHECKS["SR"](store, store.get("VDI", arguments[argument], "SR"), op)

    return refuse


def _not_built(call: Call, vdi: str) -> ApiError:
    """Raises why its SR cannot be asked."""
    host_for(call.store, existing(call.store, "VDI", vdi)["SR"])
    return ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("VDI.resize_online", Lock("VDI", "resize_online", refuse=_sr_allows("vdi_resize")), built=False)
def resize_online(call: Call, vdi: str, size: int) -> None:
    raise _not_built(call, vdi)


@operation("VDI.revert", Lock("VDI", "revert_to", refuse=_sr_allows("vdi_revert")), built=False)
def revert(call: Call, snapshot: str) -> None:
    refusal = CHECKS["VDI"](call.store, existing(call.store, "VDI", snapshot)["snapshot_of"], "revert_from")
    if refusal is not None:
        raise refusal
    raise _not_built(call, snapshot)


@operation("VDI.generate_config", Lock("VDI", "generate_config", argument=1), built=False)
def generate_config(call: Call, host: str, vdi: str) -> str:
    require_live(call.store, host)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("VDI.force_unlock", Lock("VDI", "force_unlock"), built=False)
def force_unlock(call: Call, vdi: str) -> None:
    """No SR has such locks any more."""
    host_for(call.store, existing(call.store, "VDI", vdi)["SR"])
    raise ApiError("MESSAGE_DEPRECATED")


@operation("VDI.checksum", built=False)
def checksum(call: Call, self: str) -> str:
    raise _not_built(call, self)


@operation("VDI.pool_migrate", built=False)
def pool_migrate(call: Call, vdi: str, sr: str, options: dict[str, str]) -> str:
    """Moving a disk under its VM."""
    row = call.store.row("VDI", vdi)
    if row is None or not row["VBDs"]:
        raise ApiError("VDI_NEEDS_VM_FOR_MIGRATE", vdi)
    vm = existing(call.store, "VBD", row["VBDs"][0])["VM"]
    refusal = CHECKS["VM"](call.store, vm, "migrate_send") or CHECKS["VDI"](call.store, vdi, "mirror")
    if refusal is not None:
        raise refusal
    existing(call.store, "SR", sr)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


# ---- databases of other pools


def _database(call: Call, vdi: str) -> bool:
    return bool(existing(call.store, "VDI", vdi)["type"] == "metadata")


@operation("VDI.open_database", built=False)
def open_database(call: Call, self: str) -> str:
    if not _database(call, self):
        raise incompatible(self, existing(call.store, "VDI", self)["type"])
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("VDI.read_database_pool_uuid")
def read_database_pool_uuid(call: Call, self: str) -> str:
    """Of a disk without a database: none."""
    if _database(call, self):
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} of a database")
    return ""


# ---- changed blocks


@operation("VDI.enable_cbt", Lock("VDI", "enable_cbt", refuse=_sr_allows("vdi_enable_cbt")), built=False)
def enable_cbt(call: Call, self: str) -> None:
    features.require(call.store, "cbt", "CBT")
    raise _not_built(call, self)


@operation("VDI.disable_cbt", Lock("VDI", "disable_cbt", refuse=_sr_allows("vdi_disable_cbt")), built=False)
def disable_cbt(call: Call, self: str) -> None:
    raise _not_built(call, self)


@operation("VDI.data_destroy", Lock("VDI", "data_destroy", refuse=_sr_allows("vdi_data_destroy")), built=False)
def data_destroy(call: Call, self: str) -> None:
    raise _not_built(call, self)


@operation(
    "VDI.list_changed_blocks",
    Lock("VDI", "list_changed_blocks", argument=1, refuse=_sr_allows("vdi_list_changed_blocks", 1)),
    built=False,
)
def list_changed_blocks(call: Call, vdi_from: str, vdi_to: str) -> str:
    existing(call.store, "VDI", vdi_from)
    raise _not_built(call, vdi_to)


@operation("VDI.get_nbd_info")
def get_nbd_info(call: Call, self: str) -> list[dict[str, Any]]:
    """Where the disk can be read from: nowhere, unless a network is there for it. Serving there is not built yet."""
    row = existing(call.store, "VDI", self)
    if row["type"] == "cbt_metadata":
        raise incompatible(self, row["type"])
    if addresses(call.store, row["SR"]):
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} on a network for NBD")
    return []
