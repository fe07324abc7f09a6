"""Messages of class Rate_limit: token buckets, and whose calls take tokens from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from services.api.call import Call
from services.api.construct import insert
from services.api.decisions.numbers import float_text
from services.api.decisions.rows import existing
from services.api.implicit import constructor_fields
from services.api.locking import decide
from services.api.operation import operation
from shared.contracts.db import Change, Delete, Update
from shared.errors import ApiError
from shared.store import NULL, Store


def _check(fields: Mapping[str, Any]) -> None:
    """Raises INVALID_VALUE."""
    for name in ("fill_rate", "burst_size"):
        if name in fields and not 0 < fields[name] < math.inf:
            raise ApiError("INVALID_VALUE", name, float_text(fields[name]))


@operation("Rate_limit.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    fields = constructor_fields("Rate_limit", args)
    _check(fields)
    return await insert(call, "Rate_limit", fields)


@operation("Rate_limit.destroy")
async def destroy(call: Call, self: str) -> None:
    """Its callers have no limit then."""

    def decision(store: Store) -> list[Change]:
        free: list[Change] = [_limited(ref, NULL) for ref in existing(store, "Rate_limit", self)["callers"]]
        return [*free, Delete(cls="Rate_limit", ref=self)]

    await decide(call, "Rate_limit", self, decision)


def _limited(caller: str, limit: str) -> Update:
    return Update(cls="Caller", ref=caller, fields={"rate_limit": limit})


@operation("Rate_limit.add_caller")
async def add_caller(call: Call, self: str, caller: str) -> None:
    """Of this limit and no other. One that registered itself stays from now on."""
    existing(call.store, "Rate_limit", self)
    existing(call.store, "Caller", caller)
    kept = Update(cls="Caller", ref=caller, fields={"auto_registered": False})
    await call.transact([_limited(caller, self), kept])


@operation("Rate_limit.remove_caller")
async def remove_caller(call: Call, self: str, caller: str) -> None:
    existing(call.store, "Rate_limit", self)
    if existing(call.store, "Caller", caller)["rate_limit"] == self:
        await call.transact([_limited(caller, NULL)])


async def _set(call: Call, limit: str, **fields: float) -> None:
    """The bucket is full again."""
    existing(call.store, "Rate_limit", limit)
    _check(fields)
    await call.transact([Update(cls="Rate_limit", ref=limit, fields=fields)])


@operation("Rate_limit.set_burst_size")
async def set_burst_size(call: Call, self: str, value: float) -> None:
    await _set(call, self, burst_size=value)


@operation("Rate_limit.set_fill_rate")
async def set_fill_rate(call: Call, self: str, value: float) -> None:
    await _set(call, self, fill_rate=value)
