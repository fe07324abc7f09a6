"""Messages of class VLAN. Hosts make no tagged interfaces yet; records of those that are detached can go and come."""

from __future__ import annotations

import uuid as uuids
from typing import Final

from services.api.call import Call, new_ref
from services.api.decisions import pif_rules
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing, is_null
from services.api.operation import operation
from services.api.operations.pif import on_its_host, only_detached, removed
from shared.contracts.db import Change, Create, Delete, Update
from shared.errors import ApiError

HIGHEST: Final = 4094


@operation("VLAN.create", built=False)
def create(call: Call, tagged_pif: str, tag: int, network: str) -> str:
    row = on_its_host(call, tagged_pif)
    pif_rules.network_is_managed(call.store, network)
    pif_rules.alone_on(call.store, network, row["host"])
    pif_rules.managed(call.store, tagged_pif)
    pif_rules.carries_vlan(call.store, tagged_pif)
    pif_rules.network_takes_vlan(call.store, network, tagged_pif)
    if not 0 <= tag <= HIGHEST:
        raise ApiError("VLAN_TAG_INVALID", tag)
    if any(existing(call.store, "VLAN", ref)["tag"] == tag for ref in row["VLAN_slave_of"]):
        raise ApiError("PIF_VLAN_EXISTS", row["device"])
    pif_rules.no_trunks(call.store, network)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("VLAN.destroy")
async def destroy(call: Call, self: str) -> None:
    row = existing(call.store, "VLAN", self)
    require_live(call.store, existing(call.store, "PIF", row["tagged_PIF"])["host"])
    gone: list[Change] = [Delete(cls="VLAN", ref=self)]
    pif, untagged = row["untagged_PIF"], call.store.row("PIF", row["untagged_PIF"])
    if untagged is not None:
        pif_rules.not_in_bond(call.store, pif)
        pif_rules.not_management_of_member(call.store, pif)
        pif_rules.unprotected(call.store, pif)
        if untagged["VLAN"] == pif_rules.UNTAGGED:
            raise ApiError("PIF_IS_PHYSICAL")
        pif_rules.may_be_unplugged(call.store, pif)
        only_detached(call, untagged)
        gone += removed(call, pif)
    await call.transact(gone)


@operation("VLAN.pool_introduce")
async def pool_introduce(call: Call, tagged_pif: str, untagged_pif: str, tag: int, other_config: dict[str, str]) -> str:
    """Of a host that joins. Both interfaces are one card, with the same metrics."""
    metrics = existing(call.store, "PIF", tagged_pif)["metrics"]
    old = existing(call.store, "PIF", untagged_pif)["metrics"]
    ref = new_ref()
    fields = {
        "uuid": str(uuids.uuid4()),
        "tagged_PIF": tagged_pif,
        "untagged_PIF": untagged_pif,
        "tag": tag,
        "other_config": other_config,
    }
    changes: list[Change] = [
        Create(cls="VLAN", ref=ref, fields=fields),
        Update(cls="PIF", ref=untagged_pif, fields={"VLAN_master_of": ref, "metrics": metrics}),
    ]
    if old != metrics and not is_null(old):
        changes.append(Delete(cls="PIF_metrics", ref=old))
    await call.transact(changes)
    return ref
