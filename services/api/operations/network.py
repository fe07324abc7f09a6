"""Messages of class network."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from services.api.call import Call, new_ref
from services.api.decisions import network_operations
from services.api.decisions.rows import existing
from services.api.implicit import constructor_fields
from services.api.operation import operation
from shared.contracts.db import Change, Create, Delete, SetAdd, SetDrop, Update
from shared.errors import ApiError
from shared.store import Store

USUAL_MTU: Final = 1500
LEAST_MTU: Final = 68
LARGEST_MTU: Final = 65535
LONGEST_NAME: Final = 15
"""Characters of a bridge's name, as the kernel allows."""
OURS: Final = ("xen", "xapi", "vif", "tap", "eth")
"""How names begin that a client may not choose for a bridge."""


def free_bridge(store: Store) -> str:
    """`xapi<n>`, the lowest number no network has."""
    taken = {row["bridge"] for row in store.rows("network").values()}
    return next(name for number in range(len(taken) + 1) if (name := f"xapi{number}") not in taken)


@operation("network.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    """A private network; its bridge is made on a host when the first VIF needs it."""
    fields = constructor_fields("network", args)
    if fields["MTU"] <= 0:
        fields["MTU"] = USUAL_MTU
    if not LEAST_MTU <= fields["MTU"] <= LARGEST_MTU:
        raise ApiError("INVALID_VALUE", "MTU", fields["MTU"])
    if len(fields["bridge"]) > LONGEST_NAME or fields["bridge"].startswith(OURS):
        raise ApiError("INVALID_VALUE", "bridge", fields["bridge"])
    ref = new_ref()
    async with call.api.turns.of("bridges"):  # of all networks: there is no row that stands for them
        bridge = fields["bridge"] or free_bridge(call.store)
        if any(row["bridge"] == bridge for row in call.store.rows("network").values()):
            raise ApiError("BRIDGE_NAME_EXISTS", bridge)
        row = {**fields, "uuid": str(uuids.uuid4()), "bridge": bridge}
        await call.transact([Create(cls="network", ref=ref, fields=row)])
    return ref


@operation("network.pool_introduce")
async def pool_introduce(
    call: Call,
    name_label: str,
    name_description: str,
    mtu: int,
    other_config: dict[str, str],
    bridge: str,
    managed: bool,
    purpose: list[str],
) -> str:
    """The record of a joining host's network, as it is there."""
    ref = new_ref()
    fields = {
        "uuid": str(uuids.uuid4()),
        "name_label": name_label,
        "name_description": name_description,
        "MTU": mtu,
        "other_config": other_config,
        "bridge": bridge,
        "managed": managed,
        "purpose": purpose,
    }
    await call.transact([Create(cls="network", ref=ref, fields=fields)])
    return ref


@operation("network.destroy")
async def destroy(call: Call, self: str) -> None:
    refusal = network_operations.check_destroy(call.store, self)
    if refusal is not None:
        raise refusal
    row = existing(call.store, "network", self)
    vifs: list[Change] = [Delete(cls="VIF", ref=ref) for ref in row["VIFs"]]
    await call.transact([*vifs, Delete(cls="network", ref=self)])


@operation("network.set_default_locking_mode")
async def set_default_locking_mode(call: Call, network: str, value: str) -> None:
    row = existing(call.store, "network", network)
    vifs = (existing(call.store, "VIF", ref) for ref in row["VIFs"])
    if any(vif["currently_attached"] and vif["locking_mode"] == "network_default" for vif in vifs):
        raise ApiError("VIF_IN_USE", network, row["VIFs"][0])
    await call.transact([Update(cls="network", ref=network, fields={"default_locking_mode": value})])


@operation("network.add_purpose")
async def add_purpose(call: Call, self: str, value: str) -> None:
    existing(call.store, "network", self)
    for row in call.store.rows("network").values():
        for purpose in row["purpose"]:
            if purpose != value:  # a pool's disks are served with encryption everywhere or nowhere
                raise ApiError("NETWORK_INCOMPATIBLE_PURPOSES", value, purpose)
    await call.transact([SetAdd(cls="network", ref=self, field="purpose", value=value)])


@operation("network.remove_purpose")
async def remove_purpose(call: Call, self: str, value: str) -> None:
    existing(call.store, "network", self)
    await call.transact([SetDrop(cls="network", ref=self, field="purpose", value=value)])
