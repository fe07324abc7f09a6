"""Role checks: which session may call what (`wire-protocol` 6.5).

A session got its permissions at login, as names in its row; each call needs one, and some need one for each guarded key
of a map that they touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final

from services.api import role_rows, sessions
from services.api.api import Api
from shared.datamodel import model
from shared.datamodel.roles import Roles, guarding_key, message_permission, required_permission
from shared.datamodel.schema import Field, Message
from shared.errors import ApiError
from shared.store import Store

Need = tuple[str, Roles]
"""A permission, and the roles that have it."""

_FRAGMENT: Final = "permissions"
"""Under this a session's row keeps the set made from its list of permissions."""


def check(api: Api, session: str, message: Message, arguments: tuple[Any, ...]) -> None:
    """Raises RBAC_PERMISSION_DENIED [permission, text] unless the session may make this call."""
    granted = permissions_of(api, session)
    if granted is None:
        return
    plain = _plain_permission(message)
    if plain:
        if plain not in granted:
            raise denied(plain, message.roles)
        return
    for permission, roles in needed(api.store, message, arguments):
        if permission not in granted:
            raise denied(permission, roles)


def require(api: Api, session: str, permission: str) -> None:
    """The same for a permission that is not a message's, such as `http/get_export`. `session` "" is root."""
    granted = permissions_of(api, session) if session else None
    if granted is not None and permission not in granted:
        raise denied(permission, role_rows.holders().get(permission, ()))


def require_own_task(api: Api, session: str, task: str) -> None:
    """Raises HANDLE_INVALID; RBAC_PERMISSION_DENIED unless the task is the caller's, or its role covers everybody's.

    Sessions with the same subject are one owner, and so are all sessions of the local superuser.
    """
    theirs = api.store.row("session", api.store.get("task", task, "session"))
    mine = sessions.find(api, session)
    if theirs is None or _owner(theirs) != _owner(mine):
        require(api, session, "task.destroy/any")


def _owner(session: Mapping[str, Any]) -> tuple[bool, str]:
    return session["is_local_superuser"], session["auth_user_sid"]


def denied(permission: str, roles: Roles) -> ApiError:
    named = ", ".join(roles)
    text = f"No permission in user session. (Roles with this permission: {named})"
    return ApiError("RBAC_PERMISSION_DENIED", permission, text)


# ---- what a session has


def permissions_of(api: Api, session: str) -> frozenset[str] | None:
    """None: all there are. Raises SESSION_INVALID.

    The row holds a list of up to two thousand names; it becomes a set once for each state of the row.
    """
    row = api.store.find("session", session)
    if row is None:
        sessions.find(api, session)  # one that only this host knows is not limited
        return None
    if row.fields["is_local_superuser"] or row.fields["pool"]:
        return None
    known: frozenset[str] | None = row.fragments.get(_FRAGMENT)
    if known is None:
        known = row.fragments[_FRAGMENT] = _shared(tuple(row.fields["rbac_permissions"]))
    return known


@lru_cache(maxsize=64)
def _shared(permissions: tuple[str, ...]) -> frozenset[str]:
    """One set for all sessions of the same roles."""
    return frozenset(permissions)


# ---- what a call needs


def needed(store: Store, message: Message, arguments: tuple[Any, ...]) -> Iterator[Need]:
    """Everything a call needs. A guarded key that is added or removed needs its own permission instead of the
    message's; what replaces or brings a whole map needs the message's and one for each guarded key that it changes.
    """
    if message.guarded_keys:
        yield required_permission(message, str(arguments[1]))
        return
    yield required_permission(message)
    for field in _guarded_fields(message):
        if message.kind == "create":
            yield from _of_keys(field, {}, arguments[0].get(field.name, {}))
        else:
            row = store.row(message.cls, arguments[0])
            yield from _of_keys(field, {} if row is None else row[field.name], arguments[1])


def _of_keys(field: Field, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Need]:
    add = model.messages[f"{field.cls}.add_to_{field.name}"]
    remove = model.messages[f"{field.cls}.remove_from_{field.name}"]
    for key in {**before, **after}:
        if before.get(key) != after.get(key) and guarding_key(add, key) is not None:
            yield required_permission(add if key in after else remove, key)


@cache
def _plain_permission(message: Message) -> str:
    """The one permission that the message always needs; "" if that depends on its arguments."""
    return "" if _guarded_fields(message) else message_permission(message)


@cache
def _guarded_fields(message: Message) -> tuple[Field, ...]:
    """Maps with guarded keys that the message changes."""
    fields = model.classes[message.cls].fields.values()
    if message.kind == "create":
        return tuple(field for field in fields if field.guarded_keys and field.qualifier != "RO/runtime")
    changes = {f"{verb}_{field.name}": field for field in fields if field.guarded_keys for verb in _VERBS}
    return (changes[message.name],) if message.name in changes else ()


_VERBS: Final = ("set", "add_to", "remove_from")
