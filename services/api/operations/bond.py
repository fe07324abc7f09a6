"""Messages of class Bond. Bonding interfaces is not built yet; what could not be a bond is refused as such."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.errors import ApiError


@operation("Bond.create", built=False)
def create(call: Call, network: str, members: list[str], mac: str, mode: str, properties: dict[str, str]) -> str:
    if len(members) < 2:
        raise ApiError("PIF_BOND_NEEDS_MORE_MEMBERS")
    existing(call.store, "network", network)
    for pif in members:
        existing(call.store, "PIF", pif)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
