"""VMs that are started, recovered or placed together."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import ClassDecl, declare, maintained, message, static
from shared.datamodel.groups import names, operations, uuid
from shared.datamodel.roles import POOL_OPERATOR, READ_ONLY, VM_ADMIN
from shared.datamodel.types import BOOL, STRING, STRING_MAP, STRING_SET, EnumType, SetType

PLACEMENT_POLICY = EnumType("placement_policy", ("anti_affinity", "normal"))
VM_APPLIANCE_OPERATION = EnumType("vm_appliance_operation", ("start", "clean_shutdown", "hard_shutdown", "shutdown"))

VM_APPLIANCE = declare(
    "VM_appliance",
    "VMs that are started and stopped together, in order.",
    since="boston",
    roles=POOL_OPERATOR,
    default_ctor_dtor=True,
    fields=[
        uuid(since="rio"),
        names("appliance", since="rio"),
        operations(VM_APPLIANCE_OPERATION, since="rio"),
        maintained("VMs", "VM.appliance", "The VMs that belong to it.", since="rio"),
    ],
    messages=[
        message(
            "start",
            "Starts all its VMs in their order.",
            {"self": refs.VM_appliance, "paused": BOOL},
            errors=("OPERATION_PARTIALLY_FAILED",),
        ),
        message(
            "clean_shutdown",
            "Asks all its guests to shut down, in reverse order.",
            {"self": refs.VM_appliance},
            errors=("OPERATION_PARTIALLY_FAILED",),
        ),
        message(
            "hard_shutdown",
            "Stops all its VMs at once.",
            {"self": refs.VM_appliance},
            errors=("OPERATION_PARTIALLY_FAILED",),
        ),
        message(
            "shutdown",
            "Asks each of its guests to shut down, and pulls the plug if that fails.",
            {"self": refs.VM_appliance},
            errors=("OPERATION_PARTIALLY_FAILED",),
        ),
        message(
            "assert_can_be_recovered",
            "Fails if storage that it needs is missing in the pool of `session_to`.",
            {"self": refs.VM_appliance, "session_to": refs.session},
            roles=READ_ONLY,
            errors=("VM_REQUIRES_SR",),
        ),
        message(
            "get_SRs_required_for_recovery",
            "SRs it needs in the pool of `session_to`.",
            {"self": refs.VM_appliance, "session_to": refs.session},
            SetType(refs.SR),
            since="creedence",
            roles=READ_ONLY,
        ),
        message(
            "recover",
            "Brings it and its VMs from this backup into the pool of `session_to`.",
            {"self": refs.VM_appliance, "session_to": refs.session, "force": BOOL},
            roles=READ_ONLY,
            errors=("VM_REQUIRES_SR",),
        ),
    ],
)

VM_GROUP = declare(
    "VM_group",
    "VMs that are placed with regard to each other.",
    since="prototyped 24.19.1",
    roles=VM_ADMIN,
    default_ctor_dtor=True,
    fields=[
        uuid(since="rio"),
        names("group", since="rio"),
        static("placement", PLACEMENT_POLICY, "Whether its VMs are spread over hosts.", "normal"),
        maintained("VMs", "VM.groups", "The VMs that belong to it."),
    ],
)

DR_TASK = declare(
    "DR_task",
    "Storage brought in to recover VMs from; destroying it lets go of that storage.",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        maintained("introduced_SRs", "SR.introduced_by", "SRs that it brought in.", since="rio"),
    ],
    messages=[
        message(
            "create",
            "Brings in the SRs found at this place.",
            {"type": STRING, "device_config": STRING_MAP, "whitelist": STRING_SET},
            refs.DR_task,
        ),
        message("destroy", "Lets go of the SRs that are not in use.", {"self": refs.DR_task}),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (VM_APPLIANCE, VM_GROUP, DR_TASK)
