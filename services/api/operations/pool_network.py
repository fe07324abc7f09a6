"""Messages of class pool about VLANs on all hosts, which are not built yet."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.errors import ApiError


@operation("pool.create_VLAN", built=False)
def create_vlan(call: Call, device: str, network: str, vlan: int) -> list[str]:
    """`device`: of the physical interface, on every host."""
    if not any(pif["device"] == device and pif["physical"] for pif in call.store.rows("PIF").values()):
        raise ApiError("INVALID_VALUE", "device", device)
    existing(call.store, "network", network)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
