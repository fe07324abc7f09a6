"""Messages of class Observer. Observers are kept; no service follows one yet, so none can be enabled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.call import Call
from services.api.construct import plain_class
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Update
from shared.errors import ApiError


def _new(call: Call, fields: Mapping[str, Any]) -> ApiError | None:
    return ApiError("NOT_IMPLEMENTED", "Observer.create enabled") if fields["enabled"] else None


plain_class("Observer", new=_new)


@operation("Observer.set_enabled")
async def set_enabled(call: Call, self: str, value: bool) -> None:
    existing(call.store, "Observer", self)
    if value:
        raise ApiError("NOT_IMPLEMENTED", "Observer.set_enabled")
    await call.transact([Update(cls="Observer", ref=self, fields={"enabled": False})])


def _setter(name: str) -> None:
    @operation(f"Observer.set_{name}")
    async def set_field(call: Call, self: str, value: Any) -> None:
        existing(call.store, "Observer", self)
        await call.transact([Update(cls="Observer", ref=self, fields={name: value})])


for _name in ("hosts", "attributes", "endpoints", "components"):
    _setter(_name)
