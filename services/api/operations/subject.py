"""Messages of class subject: which users and groups of the external directory may log in, and with which roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api import role_rows
from services.api.call import Call
from services.api.construct import insert, remove
from services.api.decisions.rows import existing
from services.api.directory import hooks
from services.api.implicit import constructor_fields
from services.api.operation import operation
from services.api.operations.role import names
from shared.contracts.db import SetAdd, SetDrop
from shared.errors import ApiError


@operation("subject.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    """It begins as a pool administrator. Raises AUTH_IS_DISABLED, SUBJECT_ALREADY_EXISTS."""
    fields = constructor_fields("subject", args)
    if not call.api.directory.is_on:
        raise ApiError("AUTH_IS_DISABLED")
    async with call.api.turns.of("subject.create"):
        wanted = fields["subject_identifier"]
        if any(row["subject_identifier"] == wanted for row in call.store.rows("subject").values()):
            raise ApiError("SUBJECT_ALREADY_EXISTS")
        ref = await insert(call, "subject", fields)
    _tell(call, hooks.AFTER_SUBJECT_ADD)
    return ref


@operation("subject.destroy")
async def destroy(call: Call, self: str) -> None:
    """Sessions of those who were let in as this subject, and as no other, end soon after."""
    await remove(call, "subject", self)
    _tell(call, hooks.AFTER_SUBJECT_REMOVE)


@operation("subject.add_to_roles")
async def add_to_roles(call: Call, self: str, role: str) -> None:
    """Counts from the next login on. Raises ROLE_NOT_FOUND, ROLE_ALREADY_EXISTS."""
    if not _is_role(role):
        raise ApiError("ROLE_NOT_FOUND")
    if role in existing(call.store, "subject", self)["roles"]:
        raise ApiError("ROLE_ALREADY_EXISTS")
    await call.transact([SetAdd(cls="subject", ref=self, field="roles", value=role)])
    _tell(call, hooks.AFTER_ROLES_UPDATE)


@operation("subject.remove_from_roles")
async def remove_from_roles(call: Call, self: str, role: str) -> None:
    """Counts from the next login on. Raises ROLE_NOT_FOUND."""
    if role not in existing(call.store, "subject", self)["roles"]:
        raise ApiError("ROLE_NOT_FOUND")
    await call.transact([SetDrop(cls="subject", ref=self, field="roles", value=role)])
    _tell(call, hooks.AFTER_ROLES_UPDATE)


@operation("subject.get_permissions_name_label")
def get_permissions_name_label(call: Call, self: str) -> list[str]:
    return names(existing(call.store, "subject", self)["roles"])


def _is_role(ref: str) -> bool:
    """One that people are given: neither a permission nor one for the toolstack's own use."""
    row = role_rows.rows().row("role", ref)
    return row is not None and not row["is_internal"]


def _tell(call: Call, event: str) -> None:
    call.written.append(lambda: call.api.directory.hooks.begin(event))
