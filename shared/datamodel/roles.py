"""Roles, the sets of roles that messages name, and permissions.

Every message names all roles that may call it; a higher role does not inherit what is listed for a lower one only.
Roles and permissions are constant rows of class `role`, so their uuids and refs are computed, never stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import md5
from uuid import UUID

from shared.datamodel.schema import Message

Roles = tuple[str, ...]

CLIENT_CERT = "client-cert"
HIGH_TO_LOW: Roles = (
    "pool-admin",
    "pool-operator",
    "vm-power-admin",
    "vm-admin",
    "vm-operator",
    CLIENT_CERT,
    "read-only",
)
INTERNAL_ROLES = frozenset({CLIENT_CERT})


def at_least(role: str, *, client_cert: bool = False) -> Roles:
    """That role and every higher one, high to low.

    `client-cert` stands beside the order: it is in a set that reaches down to read-only, or where asked for.
    """
    reached = HIGH_TO_LOW[: HIGH_TO_LOW.index(role) + 1]
    with_client_cert = client_cert or role == "read-only"
    return tuple(r for r in HIGH_TO_LOW if (with_client_cert if r == CLIENT_CERT else r in reached))


POOL_ADMIN = at_least("pool-admin")
POOL_OPERATOR = at_least("pool-operator")
VM_POWER_ADMIN = at_least("vm-power-admin")
VM_ADMIN = at_least("vm-admin")
VM_OPERATOR = at_least("vm-operator")
READ_ONLY = at_least("read-only")
POOL_OPERATOR_OR_CERT = at_least("pool-operator", client_cert=True)
VM_POWER_ADMIN_OR_CERT = at_least("vm-power-admin", client_cert=True)
VM_OPERATOR_OR_CERT = at_least("vm-operator", client_cert=True)
LOCAL_ONLY: Roles = ()
"""No role at all: only the local superuser, other hosts of the pool and local sessions."""

EXTRA_PERMISSIONS: dict[str, Roles] = {"task.destroy/any": POOL_OPERATOR}
"""Permissions that stand for no message: `task.destroy/any` lets a user act on other users' tasks."""

_FIXED_UUIDS = {"pool-admin": "0165f154-ba3e-034e-6b27-5d271af109ba"}


def role_uuid(name: str) -> str:
    """The uuid of a role or permission: the MD5 digest of its name in uuid form, but for `pool-admin`."""
    fixed = _FIXED_UUIDS.get(name)
    return fixed or str(UUID(hex=md5(name.encode(), usedforsecurity=False).hexdigest()))


def role_ref(name: str) -> str:
    return "OpaqueRef:" + role_uuid(name)


def message_permission(message: Message) -> str:
    """What a session needs to call a message, such as `vm.start`."""
    return message.wire_name.lower()


def key_permission(message: Message, guarded_key: str) -> str:
    """What it needs to add or remove one guarded key, such as `vm.add_to_other_config/key:folder`."""
    return f"{message_permission(message)}/key:{guarded_key.lower()}"


def guarding_key(message: Message, key: str) -> str | None:
    """The guarded key that covers `key`, if any. A trailing `*` covers every key with that beginning."""
    wanted = key.lower()
    for guarded in message.guarded_keys:
        pattern = guarded.lower()
        if wanted == pattern or (pattern.endswith("*") and wanted.startswith(pattern[:-1])):
            return guarded
    return None


def required_permission(message: Message, key: str | None = None) -> tuple[str, Roles]:
    """The permission a call needs and the roles that have it. `key`: the map key an add or remove is about."""
    guarded = None if key is None else guarding_key(message, key)
    if guarded is None:
        return message_permission(message), message.roles
    return key_permission(message, guarded), message.guarded_keys[guarded]


def permissions(messages: Iterable[Message]) -> dict[str, Roles]:
    """Every permission of those messages (and the extra ones) with the roles that have it."""
    table = dict(EXTRA_PERMISSIONS)
    for message in messages:
        table[message_permission(message)] = message.roles
        for key, roles in message.guarded_keys.items():
            table[key_permission(message, key)] = roles
    return table
