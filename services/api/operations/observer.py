"""Messages of class Observer: what is traced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.call import Call
from services.api.construct import insert, remove
from services.api.decisions.rows import existing
from services.api.implicit import constructor_fields
from services.api.observers import check_attributes, check_components, check_endpoints, check_hosts
from services.api.operation import operation
from shared.contracts.db import Update


@operation("Observer.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    fields = constructor_fields("Observer", args)
    check_components(fields["components"])
    check_endpoints(fields["endpoints"])
    check_hosts(call.store.rows("host"), fields["hosts"])
    check_attributes(fields["attributes"])
    return await insert(call, "Observer", fields)


@operation("Observer.destroy")
async def destroy(call: Call, self: str) -> None:
    await remove(call, "Observer", self)


@operation("Observer.register")
def register(call: Call, self: str, host: str) -> None:
    """It does by itself: this takes back an `unregister`."""
    existing(call.store, "Observer", self)
    existing(call.store, "host", host)
    call.api.observers.register(self, host)


@operation("Observer.unregister")
def unregister(call: Call, self: str, host: str) -> None:
    existing(call.store, "Observer", self)
    existing(call.store, "host", host)
    call.api.observers.unregister(self, host)


async def _set(call: Call, observer: str, **fields: Any) -> None:
    existing(call.store, "Observer", observer)
    await call.transact([Update(cls="Observer", ref=observer, fields=fields)])


@operation("Observer.set_enabled")
async def set_enabled(call: Call, self: str, value: bool) -> None:
    await _set(call, self, enabled=value)


@operation("Observer.set_hosts")
async def set_hosts(call: Call, self: str, value: list[str]) -> None:
    check_hosts(call.store.rows("host"), value)
    await _set(call, self, hosts=value)


@operation("Observer.set_attributes")
async def set_attributes(call: Call, self: str, value: dict[str, str]) -> None:
    check_attributes(value)
    await _set(call, self, attributes=value)


@operation("Observer.set_endpoints")
async def set_endpoints(call: Call, self: str, value: list[str]) -> None:
    check_endpoints(value)
    await _set(call, self, endpoints=value)


@operation("Observer.set_components")
async def set_components(call: Call, self: str, value: list[str]) -> None:
    check_components(value)
    await _set(call, self, components=value)
