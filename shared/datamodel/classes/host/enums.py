"""Enums of the class `host`."""

from __future__ import annotations

from shared.datamodel.types import EnumType

HOST_ALLOWED_OPERATIONS = EnumType(
    "host_allowed_operations",
    (
        "provision",
        "evacuate",
        "shutdown",
        "reboot",
        "power_on",
        "vm_start",
        "vm_resume",
        "vm_migrate",
        "apply_updates",
        "enable",
    ),
)

HOST_DISPLAY = EnumType("host_display", ("enabled", "disable_on_reboot", "disabled", "enable_on_reboot"))

HOST_NTP_MODE = EnumType("host_ntp_mode", ("DHCP", "Custom", "Factory", "Disabled"))

HOST_NUMA_AFFINITY_POLICY = EnumType("host_numa_affinity_policy", ("any", "best_effort", "default_policy"))

HOST_SCHED_GRAN = EnumType("host_sched_gran", ("core", "cpu", "socket"))

LATEST_SYNCED_UPDATES_APPLIED_STATE = EnumType("latest_synced_updates_applied_state", ("yes", "no", "unknown"))
