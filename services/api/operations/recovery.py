"""Messages that recover VMs and appliances from the database that `session` looks at into the pool of `session_to`.

A session on an opened database only reads (`services.api.opened_databases`), so that both look at this pool's rows.
"""

from __future__ import annotations

from services.api import roles, sessions
from services.api.call import Call
from services.api.decisions import features, recovery
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.datamodel import model
from shared.datamodel.roles import message_permission
from shared.errors import ApiError


def _vms(call: Call, appliance: str) -> list[str]:
    return list(existing(call.store, "VM_appliance", appliance)["VMs"])


def _require_srs(call: Call, vms: list[str]) -> None:
    for vm in vms:
        refusal = recovery.check(call.store, vm)
        if refusal is not None:
            raise refusal


def _require_session(call: Call, session_to: str) -> None:
    """Raises SESSION_INVALID, LICENCE_RESTRICTION, RBAC_PERMISSION_DENIED: recovering takes the right to open a
    database.
    """
    sessions.find(call.api, session_to)
    features.require(call.store, "dr", "DR")
    try:
        roles.require(call.api, session_to, message_permission(model.messages["VDI.open_database"]))
    except ApiError as error:
        reason = "The supplied session does not have the required permissions for VM recovery."
        raise ApiError("RBAC_PERMISSION_DENIED", call.message.wire_name, reason) from error


# ---- VMs


@operation("VM.assert_can_be_recovered")
def assert_vm(call: Call, self: str, session_to: str) -> None:
    existing(call.store, "VM", self)
    sessions.find(call.api, session_to)
    _require_srs(call, [self])


@operation("VM.get_SRs_required_for_recovery")
def srs_of_vm(call: Call, self: str, session_to: str) -> list[str]:
    existing(call.store, "VM", self)
    sessions.find(call.api, session_to)
    return recovery.missing_srs(call.store, self)


@operation("VM.recover", built=False)
def recover_vm(call: Call, self: str, session_to: str, force: bool) -> None:
    """One of an appliance is recovered with it."""
    appliance = existing(call.store, "VM", self)["appliance"]
    if call.store.row("VM_appliance", appliance) is not None:
        raise ApiError("VM_IS_PART_OF_AN_APPLIANCE", self, appliance)
    _require_session(call, session_to)
    _require_srs(call, [self])
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


# ---- appliances


@operation("VM_appliance.assert_can_be_recovered")
def assert_appliance(call: Call, self: str, session_to: str) -> None:
    vms = _vms(call, self)
    sessions.find(call.api, session_to)
    _require_srs(call, vms)


@operation("VM_appliance.get_SRs_required_for_recovery")
def srs_of_appliance(call: Call, self: str, session_to: str) -> list[str]:
    vms = _vms(call, self)
    sessions.find(call.api, session_to)
    return list(dict.fromkeys(sr for vm in vms for sr in recovery.missing_srs(call.store, vm)))


@operation("VM_appliance.recover")
def recover_appliance(call: Call, self: str, session_to: str, force: bool) -> None:
    """One without VMs is there already as it is to be. VMs need the import of metadata, which is not built."""
    _require_session(call, session_to)
    vms = _vms(call, self)
    _require_srs(call, vms)
    if vms:
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
