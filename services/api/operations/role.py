"""Messages of class role. Its rows are constant (`services.api.role_rows`)."""

from __future__ import annotations

from services.api import role_rows
from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation


def names(roles: list[str]) -> list[str]:
    """Names of what these roles consist of, each once."""
    found = role_rows.rows()
    permissions = dict.fromkeys(ref for role in roles for ref in existing(found, "role", role)["subroles"])
    return [str(existing(found, "role", ref)["name_label"]) for ref in permissions]


@operation("role.get_permissions")
def get_permissions(call: Call, self: str) -> list[str]:
    return list(existing(role_rows.rows(), "role", self)["subroles"])


@operation("role.get_permissions_name_label")
def get_permissions_name_label(call: Call, self: str) -> list[str]:
    return names([self])


@operation("role.get_by_permission")
def get_by_permission(call: Call, permission: str) -> list[str]:
    return _with(permission)


@operation("role.get_by_permission_name_label")
def get_by_permission_name_label(call: Call, label: str) -> list[str]:
    return [role for permission in role_rows.rows().by_name_label("role", label) for role in _with(permission)]


def _with(permission: str) -> list[str]:
    return [ref for ref, row in role_rows.rows().rows("role").items() if permission in row["subroles"]]
