"""Starting and stopping VMs."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.vm.enums import VM_OPERATIONS
from shared.datamodel.declare import MessageDecl, message
from shared.datamodel.roles import (
    LOCAL_ONLY,
    POOL_ADMIN,
    POOL_OPERATOR,
    READ_ONLY,
    VM_OPERATOR,
    VM_OPERATOR_OR_CERT,
    VM_POWER_ADMIN_OR_CERT,
)
from shared.datamodel.types import BOOL, FLOAT, STRING

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "provision",
        "Makes the disks that a clone of a template asks for.",
        {"vm": refs.VM},
        errors=("VM_BAD_POWER_STATE", "SR_FULL", "OPERATION_NOT_ALLOWED", "LICENCE_RESTRICTION"),
    ),
    message(
        "start",
        "Starts it on a host chosen by the pool.",
        {"vm": refs.VM, "start_paused": BOOL, "force": BOOL},
        roles=VM_OPERATOR,
        errors=(
            "VM_BAD_POWER_STATE",
            "VM_HVM_REQUIRED",
            "VM_IS_TEMPLATE",
            "OTHER_OPERATION_IN_PROGRESS",
            "OPERATION_NOT_ALLOWED",
            "BOOTLOADER_FAILED",
            "UNKNOWN_BOOTLOADER",
            "NO_HOSTS_AVAILABLE",
            "LICENCE_RESTRICTION",
        ),
    ),
    message(
        "start_on",
        "Starts it on this host.",
        {"vm": refs.VM, "host": refs.host, "start_paused": BOOL, "force": BOOL},
        roles=VM_POWER_ADMIN_OR_CERT,
        errors=(
            "VM_BAD_POWER_STATE",
            "VM_IS_TEMPLATE",
            "OTHER_OPERATION_IN_PROGRESS",
            "OPERATION_NOT_ALLOWED",
            "BOOTLOADER_FAILED",
            "UNKNOWN_BOOTLOADER",
        ),
    ),
    message(
        "pause",
        "Stops its CPUs; it stays in memory.",
        {"vm": refs.VM},
        roles=VM_OPERATOR,
        errors=("VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "unpause",
        "Lets its CPUs run again.",
        {"vm": refs.VM},
        roles=VM_OPERATOR,
        errors=("VM_BAD_POWER_STATE", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "clean_shutdown",
        "Asks the guest to shut down and waits for it.",
        {"vm": refs.VM},
        roles=VM_OPERATOR,
        errors=("VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "shutdown",
        "Asks the guest to shut down, and pulls the plug if that fails.",
        {"vm": refs.VM},
        since="clearwater",
        roles=VM_OPERATOR_OR_CERT,
        errors=("VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "clean_reboot",
        "Asks the guest to reboot and waits for it.",
        {"vm": refs.VM},
        roles=VM_OPERATOR,
        errors=("VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "hard_shutdown",
        "Stops it at once, without the guest's consent.",
        {"vm": refs.VM},
        roles=VM_OPERATOR,
        errors=("VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "power_state_reset",
        "Declares it halted in the database, whatever is true; for hosts that are dead.",
        {"vm": refs.VM},
        roles=POOL_OPERATOR,
    ),
    message(
        "hard_reboot",
        "Restarts it at once, without the guest's consent.",
        {"vm": refs.VM},
        roles=VM_OPERATOR,
        errors=("VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "suspend",
        "Saves its memory to a disk and stops it.",
        {"vm": refs.VM},
        roles=VM_OPERATOR_OR_CERT,
        errors=("VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "resume",
        "Loads its memory from disk and goes on, on a host chosen by the pool.",
        {"vm": refs.VM, "start_paused": BOOL, "force": BOOL},
        roles=VM_OPERATOR,
        errors=("VM_BAD_POWER_STATE", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "hard_reboot_internal",
        "Restarts it at once, for the toolstack's own use.",
        {"vm": refs.VM},
        since="orlando, deprecated midnight-ride",
        roles=LOCAL_ONLY,
        pool_internal=True,
    ),
    message(
        "resume_on",
        "Loads its memory from disk and goes on, on this host.",
        {"vm": refs.VM, "host": refs.host, "start_paused": BOOL, "force": BOOL},
        roles=VM_POWER_ADMIN_OR_CERT,
        errors=("VM_BAD_POWER_STATE", "OPERATION_NOT_ALLOWED", "VM_IS_TEMPLATE"),
    ),
    message(
        "send_sysrq",
        "Sends a system request key to the guest.",
        {"vm": refs.VM, "key": STRING},
        roles=POOL_ADMIN,
        errors=("VM_BAD_POWER_STATE",),
    ),
    message(
        "send_trigger",
        "Sends a hardware signal to the guest, such as a power button press.",
        {"vm": refs.VM, "trigger": STRING},
        roles=POOL_ADMIN,
        errors=("VM_BAD_POWER_STATE",),
    ),
    message(
        "assert_operation_valid",
        "Fails if the operation is not possible now.",
        {"self": refs.VM, "op": VM_OPERATIONS},
        roles=READ_ONLY,
    ),
    message(
        "update_allowed_operations", "Works out anew which operations are allowed.", {"self": refs.VM}, roles=POOL_ADMIN
    ),
    message(
        "s3_suspend",
        "Puts the guest to sleep in memory.",
        {"vm": refs.VM},
        since="midnight-ride",
        roles=VM_OPERATOR,
        hidden=True,
    ),
    message("s3_resume", "Wakes the guest up.", {"vm": refs.VM}, since="midnight-ride", roles=VM_OPERATOR, hidden=True),
    message(
        "restart_device_models",
        "Restarts the processes that emulate its hardware.",
        {"self": refs.VM},
        since="prototyped 23.30.0",
        roles=VM_POWER_ADMIN_OR_CERT,
        errors=(
            "VM_BAD_POWER_STATE",
            "OTHER_OPERATION_IN_PROGRESS",
            "VM_IS_TEMPLATE",
            "OPERATION_NOT_ALLOWED",
            "VM_BAD_POWER_STATE",
        ),
    ),
    message(
        "sysprep",
        "Has a Windows guest prepare itself for cloning.",
        {"self": refs.VM, "unattend": STRING, "timeout": FLOAT},
        since="prototyped 25.24.0",
    ),
)
