"""Messages of class tunnel, which needs Open vSwitch."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions import pif_rules
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing
from services.api.operation import operation
from services.api.operations.pif import on_its_host, only_detached, removed
from shared.contracts.db import Delete
from shared.errors import ApiError


@operation("tunnel.create", built=False)
def create(call: Call, transport_pif: str, network: str, protocol: str) -> str:
    row = on_its_host(call, transport_pif)
    pif_rules.network_is_managed(call.store, network)
    pif_rules.alone_on(call.store, network, row["host"])
    pif_rules.managed(call.store, transport_pif)
    pif_rules.carries_tunnel(call.store, transport_pif)
    pif_rules.not_on_sriov(call.store, network, "TUNNEL")
    hosts = call.store.rows("host").values()
    if any(host["software_version"].get("network_backend") != "openvswitch" for host in hosts):
        raise ApiError("OPENVSWITCH_NOT_ACTIVE")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("tunnel.destroy")
async def destroy(call: Call, self: str) -> None:
    row = existing(call.store, "tunnel", self)
    require_live(call.store, existing(call.store, "PIF", row["transport_PIF"])["host"])
    pif_rules.may_be_unplugged(call.store, row["access_PIF"])
    only_detached(call, existing(call.store, "PIF", row["access_PIF"]))
    await call.transact([Delete(cls="tunnel", ref=self), *removed(call, row["access_PIF"])])
