"""Who calls in the tests of roles, and what the reference says about each message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.api.operations.role import names
from shared.contracts.db import Create
from shared.datamodel import model
from shared.datamodel.roles import HIGH_TO_LOW, role_ref
from shared.datamodel.schema import Message
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, EnumType, MapType, RecordType, SetType, Type
from tests.api.harness import Client, Pool
from tests.datamodel import reference

SUPERUSER, HOST, NOBODY = "superuser", "host of the pool", "no role"
CALLERS = (*HIGH_TO_LOW, SUPERUSER, HOST, NOBODY)


async def log_in(pool: Pool, caller: str, sid: str = "") -> Client:
    """A client whose session is as a login leaves it: the permissions of its role, from the rows of class role."""
    client = pool.client()
    client.session = f"OpaqueRef:{caller}{sid}"
    row = {
        "is_local_superuser": caller == SUPERUSER,
        "pool": caller == HOST,
        "auth_user_sid": "" if caller in (SUPERUSER, HOST) else sid or f"sid-{caller}",
        "auth_user_name": caller,
        "rbac_permissions": names([role_ref(caller)]) if caller in HIGH_TO_LOW else [],
    }
    await pool.write(Create(cls="session", ref=client.session, fields=row))
    return client


@dataclass(frozen=True)
class Declared:
    """A message as the reference declares it."""

    name: str
    roles: tuple[str, ...]
    session: bool
    removed: bool
    pool_internal: bool
    asynchronous: bool

    def refusal(self, caller: str) -> list[str]:
        """The error that this caller gets before anything is carried out; its first two words if the rest is free."""
        if not self.session:
            return []
        if self.pool_internal and caller != HOST:
            return ["INTERNAL_ERROR"]
        if self.removed:
            return ["MESSAGE_REMOVED"]
        if caller in (SUPERUSER, HOST) or caller in self.roles:
            return []
        return ["RBAC_PERMISSION_DENIED", self.name.lower(), text(self.roles)]


def text(roles: tuple[str, ...]) -> str:
    return f"No permission in user session. (Roles with this permission: {', '.join(roles)})"


def declared() -> list[Declared]:
    """All of them."""
    return [
        Declared(
            name=f"{name}.{message['name']}",
            roles=tuple(message["roles"]),
            session=message.get("session", True),
            removed=message["lifecycle"]["state"] == "Removed_s",
            pool_internal=message.get("pool_internal", False),
            asynchronous=message.get("async", False),
        )
        for name, cls in reference.classes().items()
        for message in cls["messages"]
    ]


def arguments(message: Message) -> list[Any]:
    """Something of the right type for each parameter, as on the JSON wire; no object is named by it."""
    return [_value(param.type) for param in message.params]


def _value(type_: Type) -> Any:
    match type_:
        case EnumType():
            return type_.values[0]
        case SetType():
            return []
        case MapType():
            return {}
        case RecordType():
            fields = model.classes[type_.cls].fields.values()
            return {field.name: _value(field.type) for field in fields if field.qualifier != "RO/runtime"}
    plain: dict[Type, Any] = {BOOL: False, INT: 1, FLOAT: 1.0, DATETIME: "20250102T03:04:05Z"}
    return plain.get(type_, "OpaqueRef:none")
