"""Enums of the class `VM`."""

from __future__ import annotations

from shared.datamodel.types import EnumType

ON_CRASH_BEHAVIOUR = EnumType(
    "on_crash_behaviour",
    ("destroy", "coredump_and_destroy", "restart", "coredump_and_restart", "preserve", "rename_restart"),
)

ON_NORMAL_EXIT = EnumType("on_normal_exit", ("destroy", "restart"))

ON_SOFTREBOOT_BEHAVIOR = EnumType("on_softreboot_behavior", ("soft_reboot", "destroy", "restart", "preserve"))

UPDATE_STATUS = EnumType("update_status", ("yes", "no", "unspecified"))

VM_OPERATIONS = EnumType(
    "vm_operations",
    (
        "snapshot",
        "clone",
        "copy",
        "create_template",
        "revert",
        "checkpoint",
        "snapshot_with_quiesce",
        "provision",
        "start",
        "start_on",
        "pause",
        "unpause",
        "clean_shutdown",
        "clean_reboot",
        "hard_shutdown",
        "power_state_reset",
        "hard_reboot",
        "suspend",
        "csvm",
        "resume",
        "resume_on",
        "pool_migrate",
        "migrate_send",
        "get_boot_record",
        "send_sysrq",
        "send_trigger",
        "query_services",
        "shutdown",
        "call_plugin",
        "changing_memory_live",
        "awaiting_memory_live",
        "changing_dynamic_range",
        "changing_static_range",
        "changing_memory_limits",
        "changing_shadow_memory",
        "changing_shadow_memory_live",
        "changing_VCPUs",
        "changing_VCPUs_live",
        "changing_NVRAM",
        "assert_operation_valid",
        "data_source_op",
        "update_allowed_operations",
        "make_into_template",
        "import",
        "export",
        "metadata_export",
        "reverting",
        "destroy",
        "create_vtpm",
        "sysprep",
    ),
)

VM_POWER_STATE = EnumType("vm_power_state", ("Halted", "Paused", "Running", "Suspended"))

VM_SECUREBOOT_CERTIFICATES_STATE = EnumType(
    "vm_secureboot_certificates_state", ("ok", "update_available", "update_on_boot")
)

VM_SECUREBOOT_READINESS = EnumType(
    "vm_secureboot_readiness",
    ("not_supported", "disabled", "first_boot", "ready", "ready_no_dbx", "setup_mode", "certs_incomplete"),
)

VM_UEFI_MODE = EnumType("vm_uefi_mode", ("setup", "user"))
