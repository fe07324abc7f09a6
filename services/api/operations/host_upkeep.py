"""Messages of class host about evacuating hosts."""

from __future__ import annotations

from typing import Any

from services.api.call import Call
from services.api.decisions.evacuation import obstacles
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Equals, Update
from shared.errors import ApiError


@operation("host.get_vms_which_prevent_evacuation")
def get_vms_which_prevent_evacuation(call: Call, self: str) -> dict[str, list[str]]:
    return {vm: reason.description for vm, reason in obstacles(call.store, self).items()}


@operation("host.assert_can_evacuate")
def assert_can_evacuate(call: Call, host: str) -> None:
    reasons = [",".join(reason.description) for reason in obstacles(call.store, host).values()]
    if reasons:
        raise ApiError("CANNOT_EVACUATE_HOST", "|".join(reasons))


@operation("host.evacuate")
def evacuate(call: Call, host: str, *options: Any) -> None:
    """A host without VMs is evacuated."""
    for reason in obstacles(call.store, host).values():
        raise reason


@operation("host.allocate_resources_for_vm")
async def allocate_resources_for_vm(call: Call, self: str, vm: str, live: bool) -> None:
    """Keeps memory there for a VM that will come."""
    planned = existing(call.store, "VM", vm)["scheduled_to_be_resident_on"]
    existing(call.store, "host", self)
    refusal = call.api.placement.check(vm, self)
    if refusal is not None:
        raise refusal
    unchanged = Equals(cls="VM", ref=vm, field="scheduled_to_be_resident_on", value=planned)
    await call.transact([Update(cls="VM", ref=vm, fields={"scheduled_to_be_resident_on": self})], [unchanged])


@operation("host.migrate_receive", built=False)
def migrate_receive(call: Call, host: str, network: str, options: dict[str, str]) -> dict[str, str]:
    """Whether VMs could come over that network; the way for them is not built. Raises HOST_CANNOT_ATTACH_NETWORK,
    PIF_HAS_NO_NETWORK_CONFIGURATION, INTERFACE_HAS_NO_IP.
    """
    here = [
        (ref, pif)
        for ref in existing(call.store, "network", network)["PIFs"]
        if (pif := existing(call.store, "PIF", ref))["host"] == host
    ]
    if not here:
        raise ApiError("HOST_CANNOT_ATTACH_NETWORK", host, network)
    ref, pif = here[0]
    if not pif["IP"]:
        configured = pif["ip_configuration_mode"] != "None"
        raise ApiError("INTERFACE_HAS_NO_IP" if configured else "PIF_HAS_NO_NETWORK_CONFIGURATION", ref)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
