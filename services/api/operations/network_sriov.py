"""Messages of class network_sriov. Hosts do not split their cards yet."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions import features, pif_rules
from services.api.decisions.rows import existing, is_null
from services.api.operation import operation
from services.api.operations.pif import on_its_host, only_detached, removed
from shared.contracts.db import Delete
from shared.errors import ApiError


@operation("network_sriov.create", built=False)
def create(call: Call, pif: str, network: str) -> str:
    row = on_its_host(call, pif)
    features.require(call.store, "network_sriov", "Network_sriov")
    pif_rules.network_is_managed(call.store, network)
    pif_rules.managed(call.store, pif)
    pif_rules.shares_functions(call.store, pif)
    pif_rules.alone_on(call.store, network, row["host"])
    pif_rules.network_takes_functions(call.store, network, pif)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("network_sriov.destroy")
async def destroy(call: Call, self: str) -> None:
    pif = existing(call.store, "network_sriov", self)["logical_PIF"]
    row = on_its_host(call, pif)
    pif_rules.no_vlan_on(call.store, pif)
    pif_rules.may_be_unplugged(call.store, pif)
    only_detached(call, row)
    await call.transact([Delete(cls="network_sriov", ref=self), *removed(call, pif)])


@operation("network_sriov.get_remaining_capacity")
def get_remaining_capacity(call: Call, self: str) -> int:
    """Virtual functions of the interface's card that no VM has or is about to get."""
    rows = call.store
    pif = existing(rows, "PIF", existing(rows, "network_sriov", self)["physical_PIF"])
    functions = (existing(rows, "PCI", ref) for ref in existing(rows, "PCI", pif["PCI"])["virtual_functions"])
    return sum(not row["attached_VMs"] and is_null(row["scheduled_to_be_attached_to"]) for row in functions)
