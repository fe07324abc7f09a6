"""Enums that classes of several modules share."""

from __future__ import annotations

from shared.datamodel.types import EnumType

CERTIFICATE_PURPOSE = EnumType("certificate_purpose", ("licensing", "ldaps"))

DOMAIN_TYPE = EnumType("domain_type", ("hvm", "pv", "pv_in_pvh", "pvh", "unspecified"))

UPDATE_GUIDANCES = EnumType(
    "update_guidances",
    (
        "reboot_host",
        "reboot_host_on_livepatch_failure",
        "reboot_host_on_kernel_livepatch_failure",
        "reboot_host_on_xen_livepatch_failure",
        "restart_toolstack",
        "restart_device_model",
        "restart_vm",
    ),
)
