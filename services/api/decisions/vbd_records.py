"""What VBD.create writes (vm-lifecycle 4, storage 4.6)."""

from __future__ import annotations

from typing import Final

from services.api.decisions import vbd_devices
from services.api.decisions.rows import NULL, Record, Rows, busy, existing
from services.api.decisions.vdi_types import incompatible
from shared.contracts.db import Create
from shared.errors import ApiError

ATTACHABLE_TYPES: Final = frozenset(
    {"system", "user", "ephemeral", "suspend", "crashdump", "metadata", "rrd", "pvs_cache"}
)
MIGRATIONS: Final = frozenset({"pool_migrate", "migrate_send"})

GIVEN: Final = (
    "bootable",
    "mode",
    "type",
    "unpluggable",
    "other_config",
    "qos_algorithm_type",
    "qos_algorithm_params",
)
"""Taken from the caller as they are; what is left out gets the model's default."""

BACKEND_KIND: Final = "backend-kind"

WHEN_SUSPENDED: Final = ("device", "currently_attached")
"""Believed only of a suspended VM, whose devices wait for it to resume."""


def created(rows: Rows, ref: str, uuid: str, args: Record) -> Create:
    """The row. Raises the refusals of VBD.create, among them HANDLE_INVALID for the VM and the VDI."""
    vm = existing(rows, "VM", args["VM"])
    empty = bool(args.get("empty", False))
    if empty and args["type"] != "CD":
        raise ApiError("VBD_NOT_REMOVABLE_MEDIA", "in constructor")
    if not empty:
        _check_disk(args["VDI"], existing(rows, "VDI", args["VDI"]), args)
    if args["type"] == "CD" and args["mode"] != "RO":
        raise ApiError("VBD_CDS_MUST_BE_READONLY")
    refuse_while_migrating(args["VM"], vm)
    fields = {name: args[name] for name in GIVEN if name in args}
    if not empty:
        fields["other_config"] = _driver_wishes(existing(rows, "VDI", args["VDI"])) | args.get("other_config", {})
    if vm["power_state"] == "Suspended":
        fields |= {name: args[name] for name in WHEN_SUSPENDED if name in args}
    fields |= {
        "uuid": uuid,
        "VM": args["VM"],
        "VDI": NULL if empty else args["VDI"],
        "empty": empty,
        "userdevice": vbd_devices.assign(rows, args["VM"], args["userdevice"]),
    }
    return Create(cls="VBD", ref=ref, fields=fields)


def _driver_wishes(vdi: Record) -> dict[str, str]:
    """What a disk's SR wants to be known of whoever opens it."""
    return {key: value for key, value in vdi["sm_config"].items() if key == BACKEND_KIND}


def _check_disk(ref: str, vdi: Record, args: Record) -> None:
    if vdi["type"] not in ATTACHABLE_TYPES:
        raise incompatible(ref, vdi["type"])
    if args["type"] != "CD" and args["mode"] == "RW" and vdi["read_only"]:
        raise ApiError("VDI_READONLY", ref)


def refuse_while_migrating(ref: str, vm: Record) -> None:
    """Raises OTHER_OPERATION_IN_PROGRESS: what is added to a VM on its way would be left behind."""
    for task, running in vm["current_operations"].items():
        if running in MIGRATIONS:
            raise busy("VM", ref, running, task)
