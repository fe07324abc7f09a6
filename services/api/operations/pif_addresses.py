"""PIF messages about its addresses. They are written for when it is attached; an attached one cannot follow yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.call import Call
from services.api.decisions import addresses, pif_rules
from services.api.decisions.rows import Record
from services.api.operation import operation
from services.api.operations.pif import on_its_host, only_detached
from shared.contracts.db import Update
from shared.errors import ApiError


def _servers(text: str, version: int) -> list[str]:
    """Name servers, those of that IP version."""
    return [one for one in text.split(",") if addresses.is_address(one, version)]


def _may_change(call: Call, pif: str, row: Record, wanted: Mapping[str, Any], *, fixed: bool) -> None:
    """A host whose address changes could be fenced. `wanted`: without the name servers; `fixed`: not by DHCP."""
    pif_rules.managed(call.store, pif)
    if not fixed or any(row[field] != value for field, value in wanted.items()):
        pif_rules.unprotected(call.store, pif)
        pif_rules.no_cluster(call.store, pif)


async def _configure(call: Call, pif: str, row: Record, wanted: Mapping[str, Any], version: int, mode: str) -> None:
    """Raises PIF_IS_MANAGEMENT_INTERFACE for one that would be left without the address it is known by."""
    if row["management"] and mode == "None" and row["primary_address_type"] == f"IPv{version}":
        raise ApiError("PIF_IS_MANAGEMENT_INTERFACE", pif)
    if any(row[field] != value for field, value in wanted.items()):
        only_detached(call, row)
        await call.transact([Update(cls="PIF", ref=pif, fields=dict(wanted))])


def _require_address(text: str, version: int, name: str) -> None:
    if not addresses.is_address(text, version):
        raise ApiError("INVALID_IP_ADDRESS_SPECIFIED", name)


@operation("PIF.reconfigure_ip")
async def reconfigure_ip(call: Call, self: str, mode: str, ip: str, netmask: str, gateway: str, dns: str) -> None:
    row = on_its_host(call, self)
    wanted: dict[str, Any] = {"ip_configuration_mode": mode, "IP": ip, "netmask": netmask, "gateway": gateway}
    _may_change(call, self, row, wanted, fixed=mode == "Static")
    if mode == "Static":
        _require_address(ip, 4, "IP")
        _require_address(netmask, 4, "netmask")
    for name, value in (("IP", ip), ("netmask", netmask), ("gateway", gateway)):
        if value:
            _require_address(value, 4, name)
    servers = ",".join([*_servers(dns, 4), *_servers(row["DNS"], 6)])
    await _configure(call, self, row, {**wanted, "DNS": servers}, 4, mode)


@operation("PIF.reconfigure_ipv6")
async def reconfigure_ipv6(call: Call, self: str, mode: str, ipv6: str, gateway: str, dns: str) -> None:
    row = on_its_host(call, self)
    wanted: dict[str, Any] = {"ipv6_configuration_mode": mode, "IPv6": [ipv6], "ipv6_gateway": gateway}
    _may_change(call, self, row, wanted, fixed=mode == "Static")
    if gateway:
        _require_address(gateway, 6, "gateway")
    if ipv6 and not addresses.is_cidr(ipv6, 6):
        raise ApiError("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6")
    servers = ",".join([*_servers(dns, 6), *_servers(row["DNS"], 4)])
    await _configure(call, self, row, {**wanted, "DNS": servers}, 6, mode)
