"""Messages of class network that bring networks up on a host, for programs that put something on their bridges."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.on_hosts import on_host
from services.api.operation import Lock, operation
from shared.contracts.network import BRIDGE_DOWN, BRIDGE_UP, Bridge
from shared.store import Store


@operation("network.attach", Lock("network", "attaching"), forwarded=True)
async def attach(call: Call, network: str, host: str) -> None:
    await on_host(call, host, BRIDGE_UP, _bridge(call.store, network))


@operation("network.attach_for_vm", forwarded=True)
async def attach_for_vm(call: Call, host: str, vm: str) -> None:
    """All networks that the VM's interfaces are on."""
    for network in _networks(call.store, vm):
        await on_host(call, host, BRIDGE_UP, _bridge(call.store, network))


@operation("network.detach_for_vm", forwarded=True)
async def detach_for_vm(call: Call, host: str, vm: str) -> None:
    """Bridges without ports go, but for those with an interface of the host."""
    for network in _networks(call.store, vm):
        pifs = existing(call.store, "network", network)["PIFs"]
        if not any(existing(call.store, "PIF", pif)["host"] == host for pif in pifs):
            await on_host(call, host, BRIDGE_DOWN, _bridge(call.store, network))


def _networks(store: Store, vm: str) -> list[str]:
    vifs = existing(store, "VM", vm)["VIFs"]
    return list(dict.fromkeys(existing(store, "VIF", vif)["network"] for vif in vifs))


def _bridge(store: Store, network: str) -> Bridge:
    row = existing(store, "network", network)
    return Bridge(bridge=row["bridge"], mtu=row["MTU"])
