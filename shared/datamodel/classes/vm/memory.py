"""Memory and CPUs of VMs."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import MessageDecl, message, setter
from shared.datamodel.roles import READ_ONLY, VM_POWER_ADMIN
from shared.datamodel.types import BOOL, FLOAT, INT, STRING

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "set_VCPUs_number_live",
        "Changes the number of CPUs while it runs.",
        {"self": refs.VM, "nvcpu": INT},
        since="rio, changed ely",
        errors=("OPERATION_NOT_ALLOWED", "LICENCE_RESTRICTION"),
    ),
    message(
        "add_to_VCPUs_params_live",
        "Changes CPU scheduling while it runs.",
        {"self": refs.VM, "key": STRING, "value": STRING},
    ),
    message(
        "compute_memory_overhead",
        "Bytes that running it would take on top of its own memory.",
        {"vm": refs.VM},
        INT,
        since="midnight-ride",
        roles=READ_ONLY,
    ),
    setter(
        "memory_dynamic_max",
        "Sets the most bytes it is asked to use.",
        since="midnight-ride",
        roles=VM_POWER_ADMIN,
        sync_only=True,
    ),
    setter(
        "memory_dynamic_min",
        "Sets the fewest bytes it is asked to use.",
        since="midnight-ride",
        roles=VM_POWER_ADMIN,
        sync_only=True,
    ),
    message(
        "set_memory_dynamic_range",
        "Sets the range of bytes it is asked to use.",
        {"self": refs.VM, "min": INT, "max": INT},
        since="midnight-ride",
        roles=VM_POWER_ADMIN,
    ),
    setter(
        "memory_static_max",
        "Sets the most bytes it can ever use.",
        since="orlando",
        roles=VM_POWER_ADMIN,
        errors=("HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN",),
        sync_only=True,
    ),
    setter(
        "memory_static_min",
        "Sets the fewest bytes it works with.",
        since="midnight-ride",
        roles=VM_POWER_ADMIN,
        sync_only=True,
    ),
    message(
        "set_memory_static_range",
        "Sets the range of bytes it can use at all.",
        {"self": refs.VM, "min": INT, "max": INT},
        since="midnight-ride",
        roles=VM_POWER_ADMIN,
    ),
    message(
        "set_memory_limits",
        "Sets all four memory limits at once.",
        {"self": refs.VM, "static_min": INT, "static_max": INT, "dynamic_min": INT, "dynamic_max": INT},
        since="midnight-ride",
        roles=VM_POWER_ADMIN,
    ),
    message(
        "set_memory",
        "Gives it exactly so many bytes: sets all limits but the static minimum.",
        {"self": refs.VM, "value": INT},
        since="ely",
        roles=VM_POWER_ADMIN,
    ),
    message(
        "set_memory_target_live",
        "Asks it to use so many bytes; set its dynamic range instead.",
        {"self": refs.VM, "target": INT},
        since="rio, deprecated midnight-ride",
        roles=VM_POWER_ADMIN,
    ),
    message(
        "wait_memory_target_live",
        "Waits until it uses as much memory as it was asked to.",
        {"self": refs.VM},
        since="orlando, deprecated midnight-ride",
        roles=READ_ONLY,
    ),
    message(
        "get_cooperative",
        "Whether the guest gives back memory when asked; all are taken to.",
        {"self": refs.VM},
        BOOL,
        since="midnight-ride, deprecated tampa",
        roles=READ_ONLY,
    ),
    setter(
        "HVM_shadow_multiplier",
        "Sets how much more memory is kept for shadow page tables, while it is halted.",
        since="midnight-ride",
        roles=VM_POWER_ADMIN,
        sync_only=True,
    ),
    message(
        "set_shadow_multiplier_live",
        "Sets how much more memory is kept for shadow page tables, while it runs.",
        {"self": refs.VM, "multiplier": FLOAT},
        roles=VM_POWER_ADMIN,
    ),
    setter("VCPUs_max", "Sets the most CPUs it can have.", since="midnight-ride", sync_only=True),
    setter("VCPUs_at_startup", "Sets how many CPUs it starts with.", since="midnight-ride", sync_only=True),
    message(
        "maximise_memory",
        "The most bytes it could have if it used no more than so many in all.",
        {"self": refs.VM, "total": INT, "approximate": BOOL},
        INT,
        since="miami",
        roles=READ_ONLY,
    ),
)
