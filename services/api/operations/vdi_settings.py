"""VDI messages that change fields. Most fields are the SR's to say: only its plug-in may set them (storage 4.5)."""

from __future__ import annotations

from typing import Any

from services.api.allowed import published
from services.api.call import Call
from services.api.decisions import sm_sessions
from services.api.decisions.rows import Rows, existing
from services.api.decisions.vdi_types import incompatible
from services.api.decisions.vm_operations import bad_power_state
from services.api.operation import Lock, operation
from services.api.storage_hosts import ask, disk, host_for
from shared.contracts import storage as contract
from shared.contracts.db import Change, Update
from shared.errors import ApiError
from shared.store import Store


async def _write(call: Call, vdi: str, field: str, value: Any) -> None:
    changes: list[Change] = [Update(cls="VDI", ref=vdi, fields={field: value})]
    await call.transact([*changes, *published(call.store, "VDI", vdi, changes)])


def _label(field: str) -> None:
    """The SR must be attached somewhere: a driver may keep the names of its disks."""

    @operation(f"VDI.set_{field}")
    async def set_label(call: Call, self: str, value: str) -> None:
        sr = existing(call.store, "VDI", self)["SR"]
        host = host_for(call.store, sr)
        if sm_sessions.is_own(call.store, call.session, sr):
            await _write(call, self, field, value)
            return
        place = disk(call.api, self)
        request = contract.VdiDescription(
            sr=place.sr,
            location=place.location,
            name_label=value if field == "name_label" else None,
            name_description=value if field == "name_description" else None,
        )
        await ask(call.api, host, contract.VDI_DESCRIBE, request)
        await _write(call, self, field, value)


for _field in ("name_label", "name_description"):
    _label(_field)


def _reported(field: str) -> None:
    @operation(f"VDI.set_{field}")
    async def set_reported(call: Call, self: str, value: Any) -> None:
        row = existing(call.store, "VDI", self)
        sm_sessions.require_own(call.store, call.session, row["SR"])
        if field == "metadata_of_pool" and row["type"] == "cbt_metadata":
            raise incompatible(self, row["type"])
        await _write(call, self, field, value)


for _field in (
    *("sharable", "managed", "read_only", "missing", "cbt_enabled"),
    *("virtual_size", "physical_utilisation", "metadata_of_pool"),
    *("is_a_snapshot", "snapshot_of", "snapshot_time"),
):
    _reported(_field)


# ---- how it behaves in VMs that start


def _in_use(rows: Rows, vdi: str) -> ApiError | None:
    """VM_BAD_POWER_STATE for the first VM with the disk that is not halted."""
    for vbd in existing(rows, "VDI", vdi)["VBDs"]:
        vm = existing(rows, "VBD", vbd)["VM"]
        state = existing(rows, "VM", vm)["power_state"]
        if state != "Halted":
            return bad_power_state(vm, ("Halted",), state)
    return None


@operation("VDI.set_allow_caching")
async def set_allow_caching(call: Call, self: str, value: bool) -> None:
    refusal = _in_use(call.store, self)
    if refusal is not None:
        raise refusal
    await _write(call, self, "allow_caching", value)


def _refuse_on_boot(store: Store, arguments: tuple[Any, ...]) -> ApiError | None:
    return _in_use(store, arguments[0])


@operation("VDI.set_on_boot", Lock("VDI", "set_on_boot", sr="vdi_set_on_boot", refuse=_refuse_on_boot))
async def set_on_boot(call: Call, self: str, value: str) -> None:
    """The SR prepares for it; what the disk is told is forgotten when a VM starts with it (`VDI_EPOCH`)."""
    host = host_for(call.store, existing(call.store, "VDI", self)["SR"])
    place = disk(call.api, self)
    request = contract.VdiPersistence(sr=place.sr, location=place.location, persistent=value == "persist")
    await ask(call.api, host, contract.VDI_SET_PERSISTENT, request)
    call.on_success.append(Update(cls="VDI", ref=self, fields={"on_boot": value}))
