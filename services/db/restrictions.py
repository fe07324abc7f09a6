"""Features that editions of the original may lack. There are no editions here: nothing is restricted."""

from __future__ import annotations

from typing import Final

FEATURES: Final = (
    *("vlan", "qos", "pool_attached_storage", "netapp", "equalogic", "pooling", "marathon", "email_alerting"),
    *("historical_performance", "wlb", "rbac", "dmc", "checkpoint", "cpu_masking", "connection", "vmpr", "vmss"),
    *("intellicache", "gpu", "dr", "vif_locking", "storage_xen_motion", "vgpu", "integrated_gpu_passthrough", "vss"),
    *("guest_agent_auto_update", "pci_device_for_auto_update", "xen_motion", "guest_ip_setting", "ad", "nested_virt"),
    *("live_patching", "set_vcpus_number_live", "pvs_proxy", "igmp_snooping", "rpu", "pool_size", "cbt"),
    *("usb_passthrough", "network_sriov", "corosync", "cluster_address", "zstd_export", "pool_secret_rotation"),
    *("certificate_verification", "updates", "internal_repo_access", "vtpm", "vm_groups", "vm_start"),
    "vm_appliance_start",
)

RESTRICTIONS: Final = {
    **{f"restrict_{feature}": "false" for feature in FEATURES},
    "enable_xha": "true",
    "platform_filter": "true",
    "regular_nag_dialog": "false",
}
"""`pool.restrictions`, and what `host.license_params` says of the same."""
