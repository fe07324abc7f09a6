"""Messages of the PVS classes: disks streamed from another server, through a cache on the host.

The proxies work in Open vSwitch, which no host here uses: a pool has neither sites nor servers. What is about rows is
done as soon as one does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from services.api.call import Call
from services.api.construct import insert
from services.api.decisions import features, open_vswitch
from services.api.decisions.rows import Rows, existing
from services.api.implicit import constructor_fields
from services.api.locking import decide
from services.api.operation import operation
from services.api.subcalls import perform
from shared.contracts.db import Change, Delete, Update
from shared.errors import ApiError
from shared.store import Store

LAST_PORT = 65535


def _require_proxies(rows: Rows) -> None:
    """Raises LICENCE_RESTRICTION, OPENVSWITCH_NOT_ACTIVE."""
    features.require(rows, "pvs_proxy", "PVS_proxy")
    open_vswitch.require(rows)


def _require_row(rows: Rows, cls: str, name: str, ref: str) -> None:
    """Raises INVALID_VALUE [name, ref]."""
    if rows.row(cls, ref) is None:
        raise ApiError("INVALID_VALUE", name, ref)


def _running(rows: Rows, site: str) -> list[str]:
    """The proxies of a site that serve a VM."""
    proxies: list[str] = existing(rows, "PVS_site", site)["proxies"]
    return [ref for ref in proxies if existing(rows, "PVS_proxy", ref)["currently_attached"]]


# ---- sites


@operation("PVS_site.introduce")
async def introduce_site(call: Call, name_label: str, name_description: str, pvs_uuid: str) -> str:
    _require_proxies(call.store)
    fields = {"name_label": name_label, "name_description": name_description, "PVS_uuid": pvs_uuid}
    return await insert(call, "PVS_site", fields)


@operation("PVS_site.forget")
async def forget_site(call: Call, self: str) -> None:
    def check(store: Store) -> list[str]:
        if running := _running(store, self):
            raise ApiError("PVS_SITE_CONTAINS_RUNNING_PROXIES", *running)
        row = existing(store, "PVS_site", self)
        if row["servers"]:
            raise ApiError("PVS_SITE_CONTAINS_SERVERS", *row["servers"])
        return list(row["cache_storage"])

    for cache in check(call.store):
        await perform(call, "PVS_cache_storage.destroy", cache)

    def decision(store: Store) -> list[Change]:
        check(store)
        return [Delete(cls="PVS_site", ref=self)]

    await decide(call, "PVS_site", self, decision)


@operation("PVS_site.set_PVS_uuid")
async def set_pvs_uuid(call: Call, self: str, value: str) -> None:
    def decision(store: Store) -> list[Change]:
        if running := _running(store, self):
            raise ApiError("PVS_SITE_CONTAINS_RUNNING_PROXIES", *running)
        return [Update(cls="PVS_site", ref=self, fields={"PVS_uuid": value})]

    await decide(call, "PVS_site", self, decision)


# ---- servers


@operation("PVS_server.introduce")
async def introduce_server(call: Call, addresses: list[str], first_port: int, last_port: int, site: str) -> str:
    _require_proxies(call.store)
    for address in addresses:
        if not _is_ip(address):
            raise ApiError("INVALID_IP_ADDRESS_SPECIFIED", "addresses")
    known = {address for row in call.store.rows("PVS_server").values() for address in row["addresses"]}
    if taken := [address for address in addresses if address in known]:
        raise ApiError("PVS_SERVER_ADDRESS_IN_USE", *taken)
    for name, port in (("first_port", first_port), ("last_port", last_port)):
        if not 0 < port <= LAST_PORT:
            raise ApiError("VALUE_NOT_SUPPORTED", name, port, "Port out of range")
    if last_port < first_port:
        raise ApiError("VALUE_NOT_SUPPORTED", "last_port", last_port, f"last_port smaller than {first_port}")
    _require_row(call.store, "PVS_site", "site", site)
    fields = {
        "addresses": list(dict.fromkeys(addresses)),
        "first_port": first_port,
        "last_port": last_port,
        "site": site,
    }
    return await insert(call, "PVS_server", fields)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@operation("PVS_server.forget")
async def forget_server(call: Call, self: str) -> None:
    existing(call.store, "PVS_server", self)
    await call.transact([Delete(cls="PVS_server", ref=self)])


# ---- proxies


@operation("PVS_proxy.create", built=False)
def create_proxy(call: Call, site: str, vif: str) -> str:
    """On the host of the VIF's VM, which is why the VIF is looked at first."""
    row = existing(call.store, "VIF", vif)
    _require_proxies(call.store)
    present = [ref for ref, row in call.store.rows("PVS_proxy").items() if row["VIF"] == vif]
    if present:
        raise ApiError("PVS_PROXY_ALREADY_PRESENT", *present)
    _require_row(call.store, "PVS_site", "site", site)
    devices = [int(existing(call.store, "VIF", ref)["device"]) for ref in existing(call.store, "VM", row["VM"])["VIFs"]]
    if int(row["device"]) != min(devices):
        raise ApiError("PVS_VIF_MUST_BE_FIRST_DEVICE")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("PVS_proxy.destroy")
async def destroy_proxy(call: Call, self: str) -> None:
    """None is ever attached: nobody starts them."""
    if existing(call.store, "PVS_proxy", self)["currently_attached"]:
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
    await call.transact([Delete(cls="PVS_proxy", ref=self)])


# ---- caches


@operation("PVS_cache_storage.create", built=False)
def create_cache(call: Call, args: Mapping[str, Any]) -> str:
    fields = constructor_fields("PVS_cache_storage", args)
    for cls, name in (("host", "host"), ("SR", "SR"), ("PVS_site", "site")):
        _require_row(call.store, cls, name, fields[name])
    site = existing(call.store, "PVS_site", fields["site"])
    if any(existing(call.store, "PVS_cache_storage", ref)["host"] == fields["host"] for ref in site["cache_storage"]):
        raise ApiError("PVS_CACHE_STORAGE_ALREADY_PRESENT", fields["site"], fields["host"])
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("PVS_cache_storage.destroy")
async def destroy_cache(call: Call, self: str) -> None:
    row = existing(call.store, "PVS_cache_storage", self)
    for proxy in _running(call.store, row["site"]):
        vif = existing(call.store, "VIF", existing(call.store, "PVS_proxy", proxy)["VIF"])
        if existing(call.store, "VM", vif["VM"])["resident_on"] == row["host"]:
            raise ApiError("PVS_CACHE_STORAGE_IS_IN_USE", self)
    if call.store.row("VDI", row["VDI"]) is not None:
        await perform(call, "VDI.destroy", row["VDI"])
    await call.transact([Delete(cls="PVS_cache_storage", ref=self)])
