"""Messages of class Bond. Hosts do not bond interfaces yet; what could not be a bond is refused as such."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions import bonds, pif_rules
from services.api.decisions.mac import is_mac
from services.api.decisions.rows import Record, existing
from services.api.operation import operation
from services.api.operations.pif import on_its_host
from shared.errors import ApiError


@operation("Bond.create", built=False)
def create(call: Call, network: str, members: list[str], mac: str, mode: str, properties: dict[str, str]) -> str:
    if not members:
        raise ApiError("PIF_BOND_NEEDS_MORE_MEMBERS")
    first = on_its_host(call, members[0])
    pif_rules.network_is_managed(call.store, network)
    pif_rules.alone_on(call.store, network, first["host"])
    pif_rules.not_on_sriov(call.store, network, "BOND")
    if mac and not is_mac(mac):
        raise ApiError("MAC_INVALID", mac)
    for name, value in properties.items():
        bonds.check_property(mode, name, value)
    bonds.check_members(call.store, members)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


def _on_its_host(call: Call, bond: str) -> Record:
    row = existing(call.store, "Bond", bond)
    on_its_host(call, row["master"])
    return row


@operation("Bond.destroy", built=False)
def destroy(call: Call, self: str) -> None:
    bonds.stays(call.store, _on_its_host(call, self)["master"])
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("Bond.set_mode")
def set_mode(call: Call, self: str, value: str) -> None:
    row = _on_its_host(call, self)
    if (row["mode"], row["properties"]) != (value, bonds.completed(value, row["properties"])):
        raise ApiError("NOT_IMPLEMENTED", "Bond.set_mode to another mode")


@operation("Bond.set_property")
def set_property(call: Call, self: str, name: str, value: str) -> None:
    row = _on_its_host(call, self)
    bonds.check_property(row["mode"], name, value)
    if row["properties"].get(name) != value:
        raise ApiError("NOT_IMPLEMENTED", "Bond.set_property to another value")
