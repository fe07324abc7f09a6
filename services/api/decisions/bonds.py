"""What may be a bond (host-services 1). Each rule raises its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from services.api.decisions import pif_rules
from services.api.decisions.rows import Record, Rows, existing, the_pool
from shared.errors import ApiError


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda text: text in values


def _number(text: str) -> bool:
    return text.lstrip("-").isdecimal()


PROPERTIES: Final[dict[str, dict[str, tuple[Callable[[str], bool], str | None]]]] = {
    "lacp": {
        "hashing_algorithm": (_one_of("src_mac", "tcpudp_ports"), "tcpudp_ports"),
        "lacp-time": (_one_of("fast", "slow"), "slow"),
        "lacp-aggregation-key": (_number, None),
        "lacp-fallback-ab": (_one_of("true", "false"), "true"),
    },
}
"""Mode to what can be set of it: which values, and what it is otherwise. Other modes have none."""


def check_property(mode: str, name: str, value: str) -> None:
    allowed, _ = PROPERTIES.get(mode, {}).get(name, (_one_of(), None))
    if not allowed(value):
        raise ApiError("INVALID_VALUE", "properties", f"{name} = {value}")


def completed(mode: str, properties: Mapping[str, str]) -> dict[str, str]:
    """With the defaults of the mode, without what it does not know."""
    known = PROPERTIES.get(mode, {})
    given = {name: value for name, value in properties.items() if name in known and known[name][0](value)}
    return {**{name: default for name, (_, default) in known.items() if default is not None}, **given}


def _addressed(pif: Record) -> bool:
    field = "ip_configuration_mode" if pif["primary_address_type"] == "IPv4" else "ipv6_configuration_mode"
    return bool(pif[field] != "None")


def _primary(members: Mapping[str, Record]) -> Record:
    """The management interface, else one with an address, else the first."""
    for wanted in (lambda pif: pif["management"], _addressed):
        for pif in members.values():
            if wanted(pif):
                return pif
    return next(iter(members.values()))


def check_members(rows: Rows, pifs: list[str]) -> None:
    """`pifs`: at least one."""
    members = {ref: existing(rows, "PIF", ref) for ref in pifs}
    family = _primary(members)["primary_address_type"]
    for ref, pif in members.items():
        if pif["primary_address_type"] != family:
            raise ApiError("PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE", ref)
    for ref in members:
        pif_rules.managed(rows, ref)
        pif_rules.joins_bond(rows, ref)
        stays(rows, ref)
    if len({pif["host"] for pif in members.values()}) > 1:
        raise ApiError("PIF_CANNOT_BOND_CROSS_HOST")
    first, *others = (pif["properties"] for pif in members.values())
    if any(properties != first for properties in others):
        raise ApiError("INCOMPATIBLE_PIF_PROPERTIES")
    if sum(map(_addressed, members.values())) > 1:
        raise ApiError("PIF_BOND_MORE_THAN_ONE_IP")


def stays(rows: Rows, pif: str) -> None:
    """High Availability speaks through the management interface."""
    pool = the_pool(rows)
    if pool is not None and pool["ha_enabled"] and existing(rows, "PIF", pif)["management"]:
        raise ApiError("HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE")
