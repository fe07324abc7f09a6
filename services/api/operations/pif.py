"""Messages of class PIF. The hosts' network service does not configure interfaces yet: what has to happen on a host is
refused, what is about rows works, and so does what a host is already doing.
"""

from __future__ import annotations

from typing import Any, Final

from services.api.call import Call, new_ref
from services.api.decisions import pif_rules
from services.api.decisions.liveness import require_live
from services.api.decisions.pif_topology import in_bond
from services.api.decisions.rows import Record, existing, is_null
from services.api.operation import operation
from services.api.subcalls import perform
from shared.contracts.db import Change, Create, Delete, Update
from shared.errors import ApiError

PROPERTIES: Final = {"gro": ("on", "off")}
"""What can be set of a network card, and to what."""


def on_its_host(call: Call, pif: str) -> Record:
    """The PIF. Raises HANDLE_INVALID, HOST_OFFLINE."""
    row = existing(call.store, "PIF", pif)
    require_live(call.store, row["host"])
    return row


def only_detached(call: Call, row: Record) -> None:
    """An interface in use would have to follow. Raises NOT_IMPLEMENTED."""
    if row["currently_attached"]:
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} of an attached interface")


@operation("PIF.plug")
def plug(call: Call, self: str) -> None:
    row = on_its_host(call, self)
    pif_rules.may_be_plugged(call.store, self)
    if not row["currently_attached"] and not in_bond(row):
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} of a detached interface")


@operation("PIF.unplug")
def unplug(call: Call, self: str) -> None:
    row = on_its_host(call, self)
    pif_rules.may_be_unplugged(call.store, self)
    only_detached(call, row)


# ---- settings


async def _write(call: Call, *pifs: str, **fields: Any) -> None:
    await call.transact([Update(cls="PIF", ref=pif, fields=fields) for pif in pifs])


@operation("PIF.set_property")
async def set_property(call: Call, self: str, name: str, value: str) -> None:
    """A bond's members have the properties of the bond."""
    row = on_its_host(call, self)
    if value not in PROPERTIES.get(name, ()):
        raise ApiError("INVALID_VALUE", "properties", f"{name} = {value}")
    if not (row["physical"] or row["bond_master_of"]) or in_bond(row):
        raise ApiError("CANNOT_CHANGE_PIF_PROPERTIES", self)
    if row["properties"].get(name) == value:
        return
    only_detached(call, row)
    members = [pif for bond in row["bond_master_of"] for pif in existing(call.store, "Bond", bond)["slaves"]]
    await _write(call, self, *members, properties={**row["properties"], name: value})


@operation("PIF.set_primary_address_type")
async def set_primary_address_type(call: Call, self: str, primary_address_type: str) -> None:
    on_its_host(call, self)
    pif_rules.unprotected(call.store, self)
    pif_rules.not_management(call.store, self)
    await _write(call, self, primary_address_type=primary_address_type)


@operation("PIF.set_disallow_unplug")
async def set_disallow_unplug(call: Call, self: str, value: bool) -> None:
    if existing(call.store, "PIF", self)["disallow_unplug"] == value:
        return
    if not value:
        pif_rules.no_cluster(call.store, self)
        pif_rules.no_cluster_grows(call.store)
    await _write(call, self, disallow_unplug=value)


# ---- VLANs by the names they had before there was a class of them


@operation("PIF.create_VLAN", built=False)
async def create_vlan(call: Call, device: str, network: str, host: str, vlan: int) -> str:
    require_live(call.store, host)
    for ref, row in call.store.rows("PIF").items():
        if row["host"] == host and row["device"] == device and row["VLAN"] == pif_rules.UNTAGGED:
            made = await perform(call, "VLAN.create", ref, vlan, network)
            return str(existing(call.store, "VLAN", made)["untagged_PIF"])
    raise ApiError("INVALID_VALUE", "device", device)


@operation("PIF.destroy")
async def destroy(call: Call, self: str) -> None:
    row = on_its_host(call, self)
    if row["VLAN"] == pif_rules.UNTAGGED:
        raise ApiError("PIF_IS_PHYSICAL")
    await perform(call, "VLAN.destroy", row["VLAN_master_of"])


# ---- records alone


_RECORD: Final = (
    *("device", "network", "host", "MAC", "MTU", "VLAN", "physical"),
    *("ip_configuration_mode", "IP", "netmask", "gateway", "DNS", "bond_slave_of", "VLAN_master_of", "management"),
    *("other_config", "disallow_unplug", "ipv6_configuration_mode", "IPv6", "ipv6_gateway"),
    *("primary_address_type", "managed", "properties"),
)
"""Fields, in the order of the messages' parameters."""


def _introduced(message: str) -> None:
    @operation(message)
    async def introduce(call: Call, *values: Any) -> str:
        """Bonds take their members themselves."""
        fields = dict(zip(_RECORD, values, strict=True))
        del fields["bond_slave_of"]
        existing(call.store, "host", fields["host"])
        existing(call.store, "network", fields["network"])
        if fields["VLAN"] != pif_rules.UNTAGGED:
            pif_rules.no_trunks(call.store, fields["network"])
        pif, metrics = new_ref(), new_ref()
        fields |= {"device_name": fields["device"], "metrics": metrics, "currently_attached": False}
        changes: list[Change] = [
            Create(cls="PIF_metrics", ref=metrics, fields={}),
            Create(cls="PIF", ref=pif, fields=fields),
        ]
        await call.transact(changes)
        return pif


for _name in ("PIF.pool_introduce", "PIF.db_introduce"):
    _introduced(_name)


def removed(call: Call, pif: str) -> list[Change]:
    """Removes the row, and its metrics unless another interface of the same card has them too."""
    metrics = existing(call.store, "PIF", pif)["metrics"]
    others = (ref for ref, row in call.store.rows("PIF").items() if ref != pif and row["metrics"] == metrics)
    gone: list[Change] = [Delete(cls="PIF", ref=pif)]
    if not is_null(metrics) and next(others, None) is None and call.store.row("PIF_metrics", metrics) is not None:
        gone.append(Delete(cls="PIF_metrics", ref=metrics))
    return gone


@operation("PIF.db_forget")
async def db_forget(call: Call, self: str) -> None:
    await call.transact(removed(call, self))


@operation("PIF.forget")
async def forget(call: Call, self: str) -> None:
    """The card stays where it is: a scan brings it back."""
    row = on_its_host(call, self)
    for rule in (
        pif_rules.not_management,
        pif_rules.not_in_bond,
        pif_rules.no_vlan,
        pif_rules.no_tunnel,
        pif_rules.unprotected,
        pif_rules.no_sriov,
        pif_rules.no_cluster,
    ):
        rule(call.store, self)
    if row["managed"]:
        only_detached(call, row)
    await call.transact(removed(call, self))
