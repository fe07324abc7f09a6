"""Enums of the class `pool`."""

from __future__ import annotations

from shared.datamodel.types import EnumType

HELLO_RETURN = EnumType("hello_return", ("ok", "unknown_host", "cannot_talk_back"))

POOL_ALLOWED_OPERATIONS = EnumType(
    "pool_allowed_operations",
    (
        "ha_enable",
        "ha_disable",
        "cluster_create",
        "designate_new_master",
        "configure_repositories",
        "sync_updates",
        "sync_bundle",
        "get_updates",
        "apply_updates",
        "tls_verification_enable",
        "cert_refresh",
        "exchange_certificates_on_join",
        "exchange_ca_certificates_on_join",
        "copy_primary_host_certs",
        "eject",
        "exchange_crls_on_join",
    ),
)

POOL_GUEST_SECUREBOOT_READINESS = EnumType("pool_guest_secureboot_readiness", ("ready", "ready_no_dbx", "not_ready"))

TELEMETRY_FREQUENCY = EnumType("telemetry_frequency", ("daily", "weekly", "monthly"))

UPDATE_SYNC_FREQUENCY = EnumType("update_sync_frequency", ("daily", "weekly"))
