"""Messages of class message: alerts as clients see them."""

from __future__ import annotations

import time
import uuid as uuids
from collections.abc import Callable, Mapping
from typing import Any

from services.api import clock, implicit
from services.api.call import Call, new_ref
from services.api.operation import operation
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
    """Messages to remove."""
    rows = store.rows("message")
    return sorted(rows, key=lambda ref: str(rows[ref]["timestamp"]))[: max(0, len(rows) - LIMIT)]


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
    """Filters: `before` and `after` (dates), `priority`."""
    tests: list[Callable[[Row], bool]] = []
    for key, value in filters.items():
        if key == "priority":
            tests.append(_of_priority(_number(key, value)))
        elif key in ("before", "after"):
            limit = _date(key, value)
            tests.append(_before(limit) if key == "before" else _after(limit))
        else:
            raise ApiError("INVALID_VALUE", "filters", key)
    rows = call.store.rows("message")
    chosen = [ref for ref, row in rows.items() if all(test(row) for test in tests)]
    await call.api.database.transact([Delete(cls="message", ref=ref) for ref in chosen])


def _number(key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ApiError("INVALID_VALUE", key, value) from None


def _date(key: str, value: str) -> str:
    try:
        clock.seconds(value)
    except ValueError:
        raise ApiError("INVALID_VALUE", key, value) from None
    return value


def _of_priority(wanted: int) -> Callable[[Row], bool]:
    return lambda row: bool(row["priority"] == wanted)


def _before(limit: str) -> Callable[[Row], bool]:
    return lambda row: bool(row["timestamp"] < limit)


def _after(limit: str) -> Callable[[Row], bool]:
    return lambda row: bool(row["timestamp"] > limit)


def _select(call: Call, test: Callable[[Row], bool]) -> dict[str, Row]:
    return {ref: dict(row) for ref, row in call.store.rows("message").items() if test(row)}


@operation("message.get")
def get(call: Call, cls: str, obj_uuid: str, since: str) -> dict[str, Row]:
    _check_object(call, cls, obj_uuid)
    return _select(call, lambda r: r["cls"] == cls and r["obj_uuid"] == obj_uuid and r["timestamp"] > since)


@operation("message.get_since")
def get_since(call: Call, since: str) -> dict[str, Row]:
    return _select(call, lambda row: bool(row["timestamp"] > since))


@operation("message.get_all")
def get_all(call: Call) -> list[str]:
    return list(call.store.rows("message"))


@operation("message.get_all_records")
def get_all_records(call: Call) -> dict[str, Row]:
    return _select(call, lambda row: True)


@operation("message.get_all_records_where")
def get_all_records_where(call: Call, expr: str) -> dict[str, Row]:
    return {ref: row.fields for ref, row in implicit.matching(call.store, "message", expr).items()}


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
