"""Messages of class message: alerts as clients see them."""

from __future__ import annotations

import heapq
import time
import uuid as uuids
from collections.abc import Callable, Mapping
from typing import Any

from services.api import clock, implicit
from services.api.call import Call, new_ref
from services.api.operation import operation
from services.api.wire import dates
from services.api.wire.unmarshal import integer
from shared.contracts.db import Create, Delete
from shared.errors import ApiError
from shared.store import Store

CLASSES = {
    "VM": "VM",
    "Host": "host",
    "SR": "SR",
    "Pool": "pool",
    "VMPP": "VMPP",
    "VMSS": "VMSS",
    "PVS_proxy": "PVS_proxy",
    "VDI": "VDI",
    "Certificate": "Certificate",
}
"""`message.cls` to class."""

Row = Mapping[str, Any]

LIMIT = 10_000
"""Messages above this number: the oldest go (`database-pool-ha` 6)."""


def surplus(store: Store) -> list[str]:
    """Messages to remove: the oldest, and of those of one second the first that were made."""
    rows = store.tables["message"].rows
    too_many = len(rows) - LIMIT
    if too_many <= 0:
        return []
    return heapq.nsmallest(too_many, rows, key=lambda ref: (str(rows[ref].fields["timestamp"]), rows[ref].created))


def _check_object(call: Call, cls: str, uuid: str, *params: str) -> None:
    if call.store.ref_of_uuid(CLASSES[cls], uuid) is None:
        raise ApiError("UUID_INVALID", *params)


@operation("message.create")
async def create(call: Call, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
    _check_object(call, cls, obj_uuid, cls, obj_uuid)
    ref = new_ref()
    fields = {
        "uuid": str(uuids.uuid4()),
        "name": name,
        "priority": priority,
        "cls": cls,
        "obj_uuid": obj_uuid,
        "timestamp": clock.stamp(time.time()),
        "body": body,
    }
    await call.api.database.transact([Create(cls="message", ref=ref, fields=fields)])
    return ref


@operation("message.destroy")
async def destroy(call: Call, self: str) -> None:
    await destroy_many(call, [self])


@operation("message.destroy_many")
async def destroy_many(call: Call, messages: list[str]) -> None:
    for ref in messages:
        if call.store.row("message", ref) is None:
            raise ApiError("HANDLE_INVALID", "message", ref)
    await call.api.database.transact([Delete(cls="message", ref=ref) for ref in messages])


@operation("message.destroy_all")
async def destroy_all(call: Call, filters: dict[str, str]) -> None:
    """Those that pass all filters: `before` and `after` (dates), `priority`. Raises INVALID_VALUE for others."""
    tests = [_filter(key, value) for key, value in filters.items()]
    rows = call.store.rows("message")
    chosen = [ref for ref, row in rows.items() if all(test(row) for test in tests)]
    await call.api.database.transact([Delete(cls="message", ref=ref) for ref in chosen])


def _filter(key: str, value: str) -> Callable[[Row], bool]:
    if key not in ("before", "after", "priority"):
        raise ApiError("INVALID_VALUE", "filters", key)
    try:
        if key == "priority":
            wanted = integer(value)
            return lambda row: bool(row["priority"] == wanted)
        limit = clock.utc(dates.canonical(value))
    except ValueError:
        raise ApiError("INVALID_VALUE", key, value) from None
    if key == "before":
        return lambda row: bool(row["timestamp"] < limit)
    return lambda row: bool(row["timestamp"] > limit)


def _select(call: Call, test: Callable[[Row], Any]) -> dict[str, Row]:
    return {ref: dict(row) for ref, row in call.store.rows("message").items() if test(row)}


@operation("message.get")
def get(call: Call, cls: str, obj_uuid: str, since: str) -> dict[str, Row]:
    """About one object, later than `since`. Raises UUID_INVALID []."""
    _check_object(call, cls, obj_uuid)
    limit = clock.utc(since)
    return _select(call, lambda row: row["cls"] == cls and row["obj_uuid"] == obj_uuid and row["timestamp"] > limit)


@operation("message.get_since")
def get_since(call: Call, since: str) -> dict[str, Row]:
    """Those of the second `since`, too: the original's have fractions, and are later."""
    limit = clock.utc(since)
    return _select(call, lambda row: bool(row["timestamp"] >= limit))


@operation("message.get_all")
def get_all(call: Call) -> list[str]:
    return list(call.store.rows("message"))


@operation("message.get_all_records")
def get_all_records(call: Call) -> dict[str, Row]:
    return _select(call, lambda row: True)


@operation("message.get_all_records_where")
async def get_all_records_where(call: Call, expr: str) -> dict[str, Row]:
    found = implicit.matching(call.store, "message", expr)
    return {ref: row.fields for ref, row in (found if isinstance(found, dict) else await found).items()}


@operation("message.get_record")
def get_record(call: Call, self: str) -> Row:
    row = call.store.row("message", self)
    if row is None:
        raise ApiError("HANDLE_INVALID", "message", self)
    return row


@operation("message.get_by_uuid")
def get_by_uuid(call: Call, uuid: str) -> str:
    ref = call.store.ref_of_uuid("message", uuid)
    if ref is None:
        raise ApiError("UUID_INVALID", "message", uuid)
    return ref
