"""Which operations the pool allows now: one at a time, each with its own way to say that it is under way."""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Rows, busy, existing
from shared.errors import ApiError

OPERATIONS: Final = (
    "apply_updates",
    "cert_refresh",
    "cluster_create",
    "configure_repositories",
    "copy_primary_host_certs",
    "designate_new_master",
    "eject",
    "exchange_ca_certificates_on_join",
    "exchange_certificates_on_join",
    "exchange_crls_on_join",
    "get_updates",
    "ha_disable",
    "ha_enable",
    "sync_bundle",
    "sync_updates",
    "tls_verification_enable",
)

IN_PROGRESS: Final = {
    "ha_enable": "HA_ENABLE_IN_PROGRESS",
    "ha_disable": "HA_DISABLE_IN_PROGRESS",
    "cluster_create": "CLUSTER_CREATE_IN_PROGRESS",
    "designate_new_master": "DESIGNATE_NEW_MASTER_IN_PROGRESS",
    "tls_verification_enable": "TLS_VERIFICATION_ENABLE_IN_PROGRESS",
    "configure_repositories": "CONFIGURE_REPOSITORIES_IN_PROGRESS",
    "sync_updates": "SYNC_UPDATES_IN_PROGRESS",
    "sync_bundle": "SYNC_BUNDLE_IN_PROGRESS",
    "apply_updates": "APPLY_UPDATES_IN_PROGRESS",
}
"""Operations that others of this table do not wait for, and what they are told. All else is waited for."""


def check(rows: Rows, pool: str, op: str) -> ApiError | None:
    """Why the operation may not start now; None if it may."""
    row = rows.row("pool", pool)
    if row is None:
        return ApiError("HANDLE_INVALID", "pool", pool)
    running = row["current_operations"]
    blocking = next((code for name, code in IN_PROGRESS.items() if name in running.values()), None)
    if blocking is not None and op in IN_PROGRESS:
        return ApiError(blocking)
    for task, name in running.items():
        if name not in IN_PROGRESS:
            return busy("pool", pool, name, task)
    if blocking is not None:
        return ApiError("OTHER_OPERATION_IN_PROGRESS", "pool", pool)
    if op == "ha_enable" and row["ha_enabled"]:
        return ApiError("HA_IS_ENABLED")
    if op == "ha_disable" and not row["ha_enabled"]:
        return ApiError("HA_NOT_ENABLED")
    return None


def allowed_operations(rows: Rows, pool: str) -> list[str]:
    """What belongs into `pool.allowed_operations`, sorted. Raises HANDLE_INVALID."""
    existing(rows, "pool", pool)
    return [op for op in OPERATIONS if check(rows, pool, op) is None]
