"""PIF messages that make rows of a host's network cards."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterator
from typing import Final

from services.api import clock
from services.api.call import Call, new_ref
from services.api.decisions.mac import is_mac
from services.api.on_hosts import on_host
from services.api.operation import operation
from shared.bus.contract import Empty
from shared.contracts.db import Change, Create
from shared.contracts.network import SCAN, Interface
from shared.errors import ApiError
from shared.store import Store

DEFAULTS: Final = {"gro": "on"}
"""Properties of a card that nobody has configured."""


async def _interfaces(call: Call, host: str) -> dict[str, Interface]:
    found = await on_host(call, host, SCAN, Empty())
    return {interface.device: interface for interface in found.interfaces}


def _known(store: Store, host: str) -> Iterator[str]:
    """Names of the cards that have a row."""
    return (row["device"] for row in store.rows("PIF").values() if row["host"] == host and row["physical"])


async def _introduce(call: Call, host: str, interface: Interface, managed: bool) -> str:
    """On the network of its name, which other hosts' cards of that name are on too."""
    pif, metrics = new_ref(), new_ref()
    bridge = f"br{interface.device}" if managed else ""
    on_bridge = [ref for ref, row in call.store.rows("network").items() if row["bridge"] == bridge]
    changes: list[Change] = []
    if len(on_bridge) == 1:
        [network] = on_bridge
    else:
        network = new_ref()
        name = f"Pool-wide network associated with {interface.device}"
        fields = {"uuid": str(uuids.uuid4()), "name_label": name, "bridge": bridge, "managed": managed}
        changes.append(Create(cls="network", ref=network, fields=fields))
    figures = {"carrier": interface.carrier, "speed": interface.speed, "last_updated": clock.now()}
    card = {
        "device": interface.device,
        "device_name": interface.device,
        "network": network,
        "host": host,
        "MAC": interface.mac,
        "MTU": interface.mtu,
        "VLAN": -1,
        "metrics": metrics,
        "physical": True,
        "currently_attached": False,
        "managed": managed,
        "properties": DEFAULTS,
    }
    changes += [Create(cls="PIF_metrics", ref=metrics, fields=figures), Create(cls="PIF", ref=pif, fields=card)]
    await call.transact(changes)
    return pif


@operation("PIF.scan")
async def scan(call: Call, host: str) -> None:
    """Cards without a row get one."""
    interfaces = await _interfaces(call, host)
    async with call.api.turns.of("bridges"):
        for device in sorted(interfaces.keys() - set(_known(call.store, host))):
            await _introduce(call, host, interfaces[device], managed=True)


@operation("PIF.introduce")
async def introduce(call: Call, host: str, mac: str, device: str, managed: bool) -> str:
    """One card; `mac` may be left out."""
    interface = (await _interfaces(call, host)).get(device)
    mac = mac.lower() or (interface.mac if interface is not None else "")
    if not is_mac(mac):
        raise ApiError("MAC_INVALID", mac)
    if device in _known(call.store, host):
        raise ApiError("DUPLICATE_PIF_DEVICE_NAME", device)
    if interface is None or interface.mac.lower() != mac:
        code = "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS"
        raise ApiError(code, device, mac)
    async with call.api.turns.of("bridges"):
        return await _introduce(call, host, interface, managed)
