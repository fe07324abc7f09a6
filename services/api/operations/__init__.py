"""What each explicit XenAPI message does: one module per class, registered by `services.api.operation.operation`."""

from __future__ import annotations

from importlib import import_module
from typing import Final

MODULES: Final = (
    "audit",
    "auth",
    "blob",
    "bond",
    "caller",
    "cluster",
    "console",
    "crashdump",
    "client_certificates",
    "data_sources",
    "dr_task",
    "driver",
    "emergency",
    "event",
    "external_auth",
    "gpu",
    "host",
    "host_certificates",
    "host_settings",
    "host_upkeep",
    "message",
    "network",
    "network_sriov",
    "observer",
    "pbd",
    "pool",
    "pool_certificates",
    "pool_database",
    "pool_ha",
    "pool_network",
    "pool_settings",
    "pvs",
    "rate_limit",
    "recovery",
    "repository",
    "role",
    "sdn",
    "secret",
    "session",
    "sr",
    "subject",
    "system_status",
    "task",
    "update",
    "usb",
    "user",
    "vbd",
    "vdi",
    "vif",
    "vif_settings",
    "vm_appliance",
    "vm_config",
    "vm_copies",
    "vm_group",
    "vm_lifecycle",
    "vm_migrate",
    "vm_settings",
    "vm_snapshots",
    "vm_suspend",
    "vmss",
    "vtpm",
)


def load() -> None:
    """Registers every operation."""
    for name in MODULES:
        import_module(f"services.api.operations.{name}")
