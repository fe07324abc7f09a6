"""Class role: constant rows, one for each permission and each role, that follow from the data model and the HTTP paths.

They are in a store of their own, which the look-ups of class role read instead of the pool's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from services.api.edge.handlers import HANDLERS, Handler
from shared.contracts.db import SnapshotRow
from shared.datamodel import model
from shared.datamodel.roles import (
    EXTRA_PERMISSIONS,
    INTERNAL_ROLES,
    POOL_ADMIN,
    READ_ONLY,
    Roles,
    at_least,
    permissions,
    role_ref,
    role_uuid,
)
from shared.store import Store

DESCRIPTIONS: Final = {
    "vm-power-admin": "Works with all VMs and templates, their memory and hosts; may change how they are protected",
    "vm-admin": "Makes, changes and removes VMs and templates",
    "vm-operator": "Starts and stops VMs and changes their drives",
    "read-only": "Reads everything, changes nothing",
    "client-cert": "Clients that are known by their certificate",
    "pool-admin": "May do everything",
    "pool-operator": "Looks after hosts, storage and networks; does not manage users",
}
"""Every role, in the order of its rows."""

_PERMISSION: Final = "A basic permission"

NOT_XENAPI: Final = frozenset({"/health", "/metrics", "/docs", "/openapi.json"})
"""Paths that anybody may read and XenAPI does not know."""

HOST_CONSOLES: Final = {
    "http/connect_console": "http/connect_console/host_console",
    "http/connect_console_ws": "http/connect_console_ws/host_console_ws",
    "http/get_vncsnapshot": "http/get_vncsnapshot/host_console",
}
"""What the console paths ask for besides, when the console is a host's: the pool-admins have it."""


@cache
def holders() -> dict[str, Roles]:
    """Every permission with the roles that have it."""
    messages = permissions(message for message in model.messages.values() if message.roles)
    extra = {name: messages.pop(name) for name in EXTRA_PERMISSIONS}
    paths = {row.permission: _roles(row) for row in HANDLERS if _has_permission(row)}
    return {**messages, **paths, **dict.fromkeys(HOST_CONSOLES.values(), POOL_ADMIN), **extra}


def _has_permission(row: Handler) -> bool:
    return row.path not in NOT_XENAPI and row.role != "local root"


def _roles(row: Handler) -> Roles:
    return at_least(row.role, client_cert=row.client_cert) if row.role else READ_ONLY


@cache
def rows() -> Store:
    """The store that holds them."""
    store = Store()
    store.load(_rows(), 1, 0)
    return store


def _rows() -> Iterator[SnapshotRow]:
    table = holders()
    for name in table:
        yield _row(name, _PERMISSION, [], internal=True)
    for role, description in DESCRIPTIONS.items():
        subroles = [role_ref(name) for name, roles in table.items() if role in roles]
        yield _row(role, description, subroles, internal=role in INTERNAL_ROLES)


def _row(name: str, description: str, subroles: list[str], *, internal: bool) -> SnapshotRow:
    fields: dict[str, Any] = {
        "uuid": role_uuid(name),
        "name_label": name,
        "name_description": description,
        "subroles": subroles,
        "is_internal": internal,
    }
    return SnapshotRow(cls="role", ref=role_ref(name), created=1, modified=1, fields=fields)


def selected(expression: str) -> list[str]:
    """What `get_all_where` gives: the expression is not looked into. `subroles<>[]` are the roles, `subroles=[]` the
    permissions, anything else is both.
    """
    found = rows().rows("role")
    if expression == "subroles<>[]":
        return [ref for ref, row in found.items() if row["subroles"]]
    if expression == "subroles=[]":
        return [ref for ref, row in found.items() if not row["subroles"]]
    return list(found)
