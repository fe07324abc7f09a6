"""Other settings of VMs, and questions about them."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.vm.enums import UPDATE_STATUS, VM_SECUREBOOT_READINESS, VM_UEFI_MODE
from shared.datamodel.declare import MessageDecl, Optional, adder, message, remover, setter
from shared.datamodel.groups import data_sources
from shared.datamodel.roles import LOCAL_ONLY, POOL_ADMIN, POOL_OPERATOR, READ_ONLY, VM_OPERATOR
from shared.datamodel.types import BOOL, STRING, STRING_MAP, STRING_SET, RecordType

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "set_is_default_template",
        "Says whether it is one of the bundled templates.",
        {"vm": refs.VM, "value": BOOL},
        since="falcon",
        roles=POOL_ADMIN,
        hidden=True,
    ),
    setter("NVRAM", "Replaces what its firmware remembers.", sync_only=True),
    adder("NVRAM", "Adds to what its firmware remembers.", sync_only=True),
    remover("NVRAM", "Removes from what its firmware remembers.", sync_only=True),
    message(
        "get_boot_record",
        "Its fields as they will be, or were, at its start.",
        {"self": refs.VM},
        RecordType("VM"),
        since="rio, deprecated inverness",
        roles=READ_ONLY,
        sync_only=True,
    ),
    *data_sources("self", refs.VM, "orlando"),
    message(
        "get_allowed_VBD_devices",
        "Free positions for drives.",
        {"vm": refs.VM},
        STRING_SET,
        roles=READ_ONLY,
        sync_only=True,
        no_current_operations=True,
    ),
    message(
        "get_allowed_VIF_devices",
        "Free positions for network interfaces.",
        {"vm": refs.VM},
        STRING_SET,
        roles=READ_ONLY,
        sync_only=True,
        no_current_operations=True,
    ),
    setter(
        "bios_strings",
        "Sets what its BIOS says about the maker; possible once.",
        since="inverness",
        errors=("VM_BIOS_STRINGS_ALREADY_SET", "INVALID_VALUE"),
    ),
    message(
        "copy_bios_strings",
        "Takes over what a host's BIOS says about the maker.",
        {"vm": refs.VM, "host": refs.host},
        since="midnight-ride",
    ),
    setter("suspend_VDI", "Replaces its memory image by an identical one.", since="boston", roles=POOL_OPERATOR),
    message(
        "query_services",
        "Services that it offers to the host, if it is a driver domain.",
        {"self": refs.VM},
        STRING_MAP,
        since="tampa",
        roles=POOL_ADMIN,
    ),
    message(
        "call_plugin",
        "Has the guest carry out a function of one of its plug-ins.",
        {"vm": refs.VM, "plugin": STRING, "fn": STRING, "args": STRING_MAP},
        STRING,
        since="cream",
        roles=VM_OPERATOR,
    ),
    message(
        "call_host_plugin",
        "Has its host carry out a function of a plug-in about it.",
        {"vm": refs.VM, "plugin": STRING, "fn": STRING, "args": STRING_MAP},
        STRING,
        since="prototyped 25.22.0",
        roles=VM_OPERATOR,
    ),
    setter("has_vendor_device", "Sets whether it has the device that makes Windows fetch drivers.", since="dundee"),
    setter("actions_after_crash", "Sets what to do when the guest crashes."),
    setter("domain_type", "Sets how it is virtualized.", since="kolkata", sync_only=True),
    setter("HVM_boot_policy", "Sets how it boots; use `set_domain_type`.", sync_only=True),
    message(
        "set_NVRAM_EFI_variables",
        "Takes the firmware's variables from the guest's firmware service.",
        {"self": refs.VM, "value": STRING, "update": Optional(UPDATE_STATUS, "unspecified")},
        since="naples",
        roles=LOCAL_ONLY,
        sync_only=True,
        hidden=True,
    ),
    message(
        "set_uefi_mode",
        "Puts its firmware into setup or user mode.",
        {"self": refs.VM, "mode": VM_UEFI_MODE},
        STRING,
        since="prototyped 24.17.0",
        roles=POOL_ADMIN,
    ),
    message(
        "get_secureboot_readiness",
        "Whether it could boot securely, and what is missing.",
        {"self": refs.VM},
        VM_SECUREBOOT_READINESS,
        since="prototyped 24.17.0",
        roles=POOL_ADMIN,
    ),
    message(
        "update_secureboot_certificates_on_boot",
        "Marks it to get new secure boot certificates at its next boot, or not.",
        {"self": refs.VM, "mark": BOOL},
        since="prototyped 26.14.0",
    ),
    setter("blocked_operations", "Replaces the operations that are forbidden."),
    adder("blocked_operations", "Forbids an operation."),
    remover("blocked_operations", "Allows a forbidden operation again."),
    adder(
        "other_config",
        "Adds a setting.",
        sync_only=True,
    ),
    remover(
        "other_config",
        "Removes a setting, if it is there.",
        sync_only=True,
    ),
    setter("other_config", "Replaces all settings.", sync_only=True),
    adder("platform", "Adds a setting of the virtual hardware.", sync_only=True),
    remover("platform", "Removes a setting of the virtual hardware.", sync_only=True),
    setter("platform", "Replaces the settings of the virtual hardware.", sync_only=True),
)
