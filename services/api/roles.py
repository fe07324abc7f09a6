"""Role checks: which session may call what (`wire-protocol` 6.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.datamodel.schema import Message
from shared.errors import ApiError

POOL_ADMIN = "pool-admin"


def check(session: Mapping[str, Any], message: Message) -> None:
    """Raises RBAC_PERMISSION_DENIED [permission, text]. Superuser sessions pass."""
    if session["is_local_superuser"] or session["pool"]:
        return
    require(session, message.wire_name.lower(), message.roles)


def require(session: Mapping[str, Any], permission: str, roles: Sequence[str]) -> None:
    """Raises RBAC_PERMISSION_DENIED unless the session was given that permission at login."""
    if session["is_local_superuser"] or session["pool"] or permission in session["rbac_permissions"]:
        return
    named = ", ".join(roles)
    raise ApiError(
        "RBAC_PERMISSION_DENIED", permission, f"No permission in user session. (Roles with this permission: {named})"
    )
