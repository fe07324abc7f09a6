"""Networks and network cards of older releases."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final

from services.db.upgrade.rule import RuleError, Surroundings, new_ref
from shared.contracts.db import Change, Create, Delete, Update
from shared.store import Store

INSTALLER: Final = "is_guest_installer_network"
INTERNAL: Final = "is_host_internal_management_network"

INTERNAL_NETWORK: Final = {
    "name_label": "Host internal management network",
    "name_description": (
        "Network on which guests will be assigned a private link-local IP address which can be used to talk XenAPI"
    ),
    "bridge": "xenapi",
    "other_config": {
        INSTALLER: "true",
        INTERNAL: "true",
        "ip_begin": "169.254.0.1",
        "ip_end": "169.254.255.254",
        "netmask": "255.255.0.0",
    },
}

PIF_PROPERTIES: Final = {"gro": "on"}
CONTROLLER_PORT: Final = 6632


def internal_network(store: Store, _: Surroundings) -> Iterator[Change]:
    """The network that guests were installed over is the one on which they speak to their host."""
    for ref, network in store.rows("network").items():
        config = network["other_config"]
        if config.get(INSTALLER) == "true" and config.get(INTERNAL) != "true":
            yield Update(cls="network", ref=ref, fields=dict(INTERNAL_NETWORK))


def _is_own(pif: Mapping[str, Any]) -> bool:
    """A card or a bond: what VLANs and tunnels lie on."""
    return bool(pif["physical"] or pif["bond_master_of"])


def pif_metrics(store: Store, _: Surroundings) -> Iterator[Change]:
    """VLANs and tunnels share the metrics of what they lie on; their own are gone."""
    gone: dict[str, None] = {}
    for below in store.rows("PIF").values():
        if not _is_own(below):
            continue
        above = [(store.row("VLAN", ref), "untagged_PIF") for ref in below["VLAN_slave_of"]]
        above += [(store.row("tunnel", ref), "access_PIF") for ref in below["tunnel_transport_PIF_of"]]
        for link, field in above:
            ref = "" if link is None else str(link[field])
            pif = store.row("PIF", ref)
            if pif is None or pif["metrics"] == below["metrics"]:
                continue
            yield Update(cls="PIF", ref=ref, fields={"metrics": below["metrics"]})
            gone[pif["metrics"]] = None
    for ref in gone:
        yield Delete(cls="PIF_metrics", ref=ref)


def pif_properties(store: Store, _: Surroundings) -> Iterator[Change]:
    for ref, pif in store.rows("PIF").items():
        yield Update(cls="PIF", ref=ref, fields={"properties": PIF_PROPERTIES if _is_own(pif) else {}})


def controllers(store: Store, _: Surroundings) -> Iterator[Change]:
    """The address of the vswitch controller was a field of the pool."""
    if store.rows("SDN_controller"):
        return
    for pool in store.rows("pool").values():
        address = pool["vswitch_controller"]
        if not address:
            continue
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            raise RuleError(f"the vswitch controller's address {address!r} is none") from None
        fields = {"protocol": "ssl", "address": address, "port": CONTROLLER_PORT}
        yield Create(cls="SDN_controller", ref=new_ref(), fields=fields)
