"""Snapshots, copies and imports of VMs."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import MessageDecl, Optional, message
from shared.datamodel.groups import new_blob
from shared.datamodel.roles import POOL_OPERATOR, READ_ONLY, VM_POWER_ADMIN
from shared.datamodel.types import BOOL, DATETIME, STRING, STRING_MAP, SetType

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "snapshot",
        "Takes a snapshot of its disks, without its memory.",
        {"vm": refs.VM, "new_name": STRING, "ignore_vdis": Optional(SetType(refs.VDI))},
        refs.VM,
        since="orlando",
        roles=VM_POWER_ADMIN,
        errors=("VM_BAD_POWER_STATE", "SR_FULL", "OPERATION_NOT_ALLOWED"),
    ),
    message(
        "snapshot_with_quiesce",
        "Takes a snapshot that the guest has prepared its disks for.",
        {"vm": refs.VM, "new_name": STRING},
        refs.VM,
        since="orlando, deprecated quebec, removed quebec",
        roles=VM_POWER_ADMIN,
        errors=(
            "VM_BAD_POWER_STATE",
            "SR_FULL",
            "OPERATION_NOT_ALLOWED",
            "VM_SNAPSHOT_WITH_QUIESCE_FAILED",
            "VM_SNAPSHOT_WITH_QUIESCE_TIMEOUT",
            "VM_SNAPSHOT_WITH_QUIESCE_PLUGIN_DEOS_NOT_RESPOND",
            "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED",
        ),
    ),
    message(
        "clone",
        "Makes another VM like it, with copy-on-write disks.",
        {"vm": refs.VM, "new_name": STRING},
        refs.VM,
        errors=("VM_BAD_POWER_STATE", "SR_FULL", "OPERATION_NOT_ALLOWED", "LICENCE_RESTRICTION"),
    ),
    message(
        "copy",
        "Makes another VM like it, with full copies of its disks in an SR.",
        {"vm": refs.VM, "new_name": STRING, "sr": refs.SR},
        refs.VM,
        since="rio, extended cowley",
        errors=("VM_BAD_POWER_STATE", "SR_FULL", "OPERATION_NOT_ALLOWED", "LICENCE_RESTRICTION"),
    ),
    message(
        "revert",
        "Takes the VM back to the state of a snapshot.",
        {"snapshot": refs.VM},
        since="midnight-ride",
        roles=VM_POWER_ADMIN,
        errors=("VM_BAD_POWER_STATE", "OPERATION_NOT_ALLOWED", "SR_FULL", "VM_REVERT_FAILED"),
    ),
    message(
        "checkpoint",
        "Takes a snapshot of its disks and memory.",
        {"vm": refs.VM, "new_name": STRING},
        refs.VM,
        since="midnight-ride",
        roles=VM_POWER_ADMIN,
        errors=(
            "VM_BAD_POWER_STATE",
            "SR_FULL",
            "OPERATION_NOT_ALLOWED",
            "VM_CHECKPOINT_SUSPEND_FAILED",
            "VM_CHECKPOINT_RESUME_FAILED",
        ),
    ),
    message(
        "csvm",
        "Makes a copy of a VM, with a fresh identity; no longer supported.",
        {"vm": refs.VM},
        refs.VM,
        since="rio, deprecated miami",
        errors=("VM_BAD_POWER_STATE", "SR_FULL", "OPERATION_NOT_ALLOWED", "LICENCE_RESTRICTION"),
        hidden=True,
    ),
    new_blob("vm", refs.VM, VM_POWER_ADMIN),
    message(
        "update_snapshot_metadata",
        "Says what this is a snapshot of; no longer supported.",
        {"vm": refs.VM, "snapshot_of": refs.VM, "snapshot_time": DATETIME, "transportable_snapshot_id": STRING},
        since="george, deprecated midnight-ride",
        roles=POOL_OPERATOR,
        hidden=True,
    ),
    message(
        "assert_can_be_recovered",
        "Fails if storage that it needs is missing in the pool of `session_to`.",
        {"self": refs.VM, "session_to": refs.session},
        since="boston",
        roles=READ_ONLY,
        errors=("VM_IS_PART_OF_AN_APPLIANCE", "VM_REQUIRES_SR"),
    ),
    message(
        "get_SRs_required_for_recovery",
        "SRs it needs in the pool of `session_to`.",
        {"self": refs.VM, "session_to": refs.session},
        SetType(refs.SR),
        since="creedence",
        roles=READ_ONLY,
    ),
    message(
        "recover",
        "Brings it from this backup into the pool of `session_to`.",
        {"self": refs.VM, "session_to": refs.session, "force": BOOL},
        since="boston",
        roles=READ_ONLY,
    ),
    message(
        "import_convert",
        "Imports a VM from another hypervisor; no longer supported.",
        {"type": STRING, "username": STRING, "password": STRING, "sr": refs.SR, "remote_config": STRING_MAP},
        since="tampa",
    ),
    message(
        "import",
        "Imports VMs that a server sends from this address.",
        {"url": STRING, "sr": refs.SR, "full_restore": BOOL, "force": BOOL},
        SetType(refs.VM),
        since="dundee",
        roles=POOL_OPERATOR,
    ),
)
