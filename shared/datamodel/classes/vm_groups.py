"""VMs that are started, recovered or placed together."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import ClassDecl, declare, maintained, message, names, operations, static, uuid
from shared.datamodel.roles import POOL_OPERATOR, READ_ONLY, VM_ADMIN
from shared.datamodel.types import BOOL, STRING, STRING_MAP, STRING_SET, EnumType, SetType

PLACEMENT_POLICY = EnumType(
    "placement_policy",
    (
        "anti_affinity",
        "normal",
    ),
)
VM_APPLIANCE_OPERATION = EnumType(
    "vm_appliance_operation",
    (
        "start",
        "clean_shutdown",
        "hard_shutdown",
        "shutdown",
    ),
)

VM_APPLIANCE = declare(
    "VM_appliance",
    "",
    since="boston",
    roles=POOL_OPERATOR,
    default_ctor_dtor=True,
    fields=[
        uuid(since="rio"),
        names("VM_appliance", since="rio"),
        operations(VM_APPLIANCE_OPERATION, since="rio"),
        maintained("VMs", "VM.appliance", "", since="rio"),
    ],
    messages=[
        message("start", "", {"self": refs.VM_appliance, "paused": BOOL}, errors=("OPERATION_PARTIALLY_FAILED",)),
        message("clean_shutdown", "", {"self": refs.VM_appliance}, errors=("OPERATION_PARTIALLY_FAILED",)),
        message("hard_shutdown", "", {"self": refs.VM_appliance}, errors=("OPERATION_PARTIALLY_FAILED",)),
        message("shutdown", "", {"self": refs.VM_appliance}, errors=("OPERATION_PARTIALLY_FAILED",)),
        message(
            "assert_can_be_recovered",
            "",
            {"self": refs.VM_appliance, "session_to": refs.session},
            roles=READ_ONLY,
            errors=("VM_REQUIRES_SR",),
        ),
        message(
            "get_SRs_required_for_recovery",
            "",
            {"self": refs.VM_appliance, "session_to": refs.session},
            SetType(refs.SR),
            since="creedence",
            roles=READ_ONLY,
        ),
        message(
            "recover",
            "",
            {"self": refs.VM_appliance, "session_to": refs.session, "force": BOOL},
            roles=READ_ONLY,
            errors=("VM_REQUIRES_SR",),
        ),
    ],
)

VM_GROUP = declare(
    "VM_group",
    "",
    since="prototyped 24.19.1",
    roles=VM_ADMIN,
    default_ctor_dtor=True,
    fields=[
        uuid(since="rio"),
        names("VM_group", since="rio"),
        static("placement", PLACEMENT_POLICY, "", "normal"),
        maintained("VMs", "VM.groups", ""),
    ],
)

DR_TASK = declare(
    "DR_task",
    "",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        maintained("introduced_SRs", "SR.introduced_by", "", since="rio"),
    ],
    messages=[
        message("create", "", {"type": STRING, "device_config": STRING_MAP, "whitelist": STRING_SET}, refs.DR_task),
        message("destroy", "", {"self": refs.DR_task}),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    VM_APPLIANCE,
    VM_GROUP,
    DR_TASK,
)
