"""Why an interface cannot be used, changed or removed now. Each rule raises its error, HANDLE_INVALID if need be."""

from __future__ import annotations

from services.api.decisions.pif_topology import Kind, in_bond, kind, kinds, root
from services.api.decisions.rows import Rows, busy, existing, the_pool
from shared.errors import ApiError

UNTAGGED = -1
"""PIF.VLAN of what is no VLAN."""


def managed(rows: Rows, pif: str) -> None:
    if not existing(rows, "PIF", pif)["managed"]:
        raise ApiError("PIF_UNMANAGED", pif)


def not_management(rows: Rows, pif: str) -> None:
    if existing(rows, "PIF", pif)["management"]:
        raise ApiError("PIF_IS_MANAGEMENT_INTERFACE", pif)


def not_management_of_member(rows: Rows, pif: str) -> None:
    """A host would lose the coordinator."""
    row, pool = existing(rows, "PIF", pif), the_pool(rows)
    if row["management"] and row["currently_attached"] and pool is not None and pool["master"] != row["host"]:
        raise ApiError("PIF_IS_MANAGEMENT_INTERFACE", pif)


def unprotected(rows: Rows, pif: str) -> None:
    """While High Availability or a redo log may need the network, an interface in use stays as it is."""
    pool = the_pool(rows)
    if pool is None or not existing(rows, "PIF", pif)["currently_attached"]:
        return
    if pool["ha_enabled"]:
        raise ApiError("HA_IS_ENABLED")
    if pool["redo_log_enabled"]:
        raise ApiError("REDO_LOG_IS_ENABLED")


def no_cluster(rows: Rows, pif: str) -> None:
    for ref, row in rows.rows("Cluster_host").items():
        if row["PIF"] == pif and row["enabled"]:
            raise ApiError("CLUSTERING_ENABLED", ref)


def no_cluster_grows(rows: Rows) -> None:
    for ref, row in rows.rows("Cluster").items():
        for task, running in row["current_operations"].items():
            if running in ("enable", "add"):
                raise busy("Cluster", ref, running, task)


def not_in_bond(rows: Rows, pif: str) -> None:
    row = existing(rows, "PIF", pif)
    if rows.row("Bond", row["bond_slave_of"]) is not None or row["bond_master_of"]:
        raise ApiError("PIF_ALREADY_BONDED", pif)


def no_vlan_on(rows: Rows, pif: str) -> None:
    if existing(rows, "PIF", pif)["VLAN_slave_of"]:
        raise ApiError("PIF_VLAN_STILL_EXISTS", pif)


def no_vlan(rows: Rows, pif: str) -> None:
    no_vlan_on(rows, pif)
    if existing(rows, "PIF", pif)["VLAN"] != UNTAGGED:
        raise ApiError("PIF_VLAN_STILL_EXISTS", pif)


def no_tunnel(rows: Rows, pif: str) -> None:
    row = existing(rows, "PIF", pif)
    if row["tunnel_transport_PIF_of"] or row["tunnel_access_PIF_of"]:
        raise ApiError("PIF_TUNNEL_STILL_EXISTS", pif)


def no_sriov(rows: Rows, pif: str) -> None:
    row = existing(rows, "PIF", pif)
    if kind(row) is Kind.SRIOV:
        raise ApiError("CANNOT_FORGET_SRIOV_LOGICAL", pif)
    if kind(row) is Kind.PHYSICAL and row["sriov_physical_PIF_of"]:
        raise ApiError("PIF_SRIOV_STILL_EXISTS", pif)


def may_be_unplugged(rows: Rows, pif: str) -> None:
    managed(rows, pif)
    unprotected(rows, pif)
    not_management(rows, pif)
    row = existing(rows, "PIF", pif)
    _unused(rows, row["network"], row["host"])
    if row["disallow_unplug"]:
        raise ApiError("PIF_DOES_NOT_ALLOW_UNPLUG", pif)


def _unused(rows: Rows, network: str, host: str) -> None:
    """By VMs that are on the host, or about to be."""
    for ref in existing(rows, "network", network)["VIFs"]:
        vif = existing(rows, "VIF", ref)
        vm = rows.row("VM", vif["VM"])
        if vm is None:
            continue
        coming = "attach" in vif["current_operations"].values()
        here = vm["resident_on"] == host
        running = vif["currently_attached"] and vm["power_state"] in ("Running", "Paused")
        if (coming and (here or vm["scheduled_to_be_resident_on"] == host)) or (running and here):
            raise ApiError("VIF_IN_USE", network, ref)


def may_be_plugged(rows: Rows, pif: str) -> None:
    managed(rows, pif)
    row = existing(rows, "PIF", pif)
    if kind(row) is Kind.TUNNEL:
        transport = existing(rows, "tunnel", row["tunnel_access_PIF_of"][0])["transport_PIF"]
        if existing(rows, "PIF", transport)["ip_configuration_mode"] == "None":
            raise ApiError("TRANSPORT_PIF_NOT_CONFIGURED", transport)
    if kind(row) is Kind.PHYSICAL and in_bond(row) and not row["sriov_physical_PIF_of"]:
        raise ApiError("CANNOT_PLUG_BOND_SLAVE", pif)


# ---- what may be put on it


def carries_vlan(rows: Rows, pif: str) -> None:
    top = kinds(rows, pif)[0]
    if top is Kind.PHYSICAL and in_bond(existing(rows, "PIF", pif)):
        raise ApiError("CANNOT_ADD_VLAN_TO_BOND_SLAVE", pif)
    if top is Kind.VLAN:
        raise ApiError("PIF_IS_VLAN", pif)
    if top is Kind.TUNNEL:
        raise ApiError("IS_TUNNEL_ACCESS_PIF", pif)


def carries_tunnel(rows: Rows, pif: str) -> None:
    stack = kinds(rows, pif)
    if stack[0] is Kind.PHYSICAL and in_bond(existing(rows, "PIF", pif)):
        raise ApiError("CANNOT_ADD_TUNNEL_TO_BOND_SLAVE", pif)
    if stack[0] is Kind.TUNNEL:
        raise ApiError("IS_TUNNEL_ACCESS_PIF", pif)
    if stack[0] is Kind.SRIOV:
        raise ApiError("CANNOT_ADD_TUNNEL_TO_SRIOV_LOGICAL", pif)
    if stack[:2] == [Kind.VLAN, Kind.SRIOV]:
        raise ApiError("CANNOT_ADD_TUNNEL_TO_VLAN_ON_SRIOV_LOGICAL", pif)


def joins_bond(rows: Rows, pif: str) -> None:
    row = existing(rows, "PIF", pif)
    match kinds(rows, pif)[0]:
        case Kind.PHYSICAL if rows.row("Bond", row["bond_slave_of"]) is not None:
            raise ApiError("PIF_ALREADY_BONDED", pif)
        case Kind.VLAN:
            raise ApiError("PIF_VLAN_EXISTS", row["device_name"])
        case Kind.TUNNEL:
            raise ApiError("IS_TUNNEL_ACCESS_PIF", pif)
        case Kind.SRIOV:
            raise ApiError("PIF_IS_SRIOV_LOGICAL", pif)


def shares_functions(rows: Rows, pif: str) -> None:
    """SR-IOV: a network card that can, and does not yet."""
    row = existing(rows, "PIF", pif)
    if kind(row) is not Kind.PHYSICAL:
        raise ApiError("PIF_IS_NOT_PHYSICAL", pif)
    if row["sriov_physical_PIF_of"]:
        raise ApiError("NETWORK_SRIOV_ALREADY_ENABLED", pif)
    if "sriov" not in row["capabilities"]:
        raise ApiError("PIF_IS_NOT_SRIOV_CAPABLE", pif)


# ---- which networks it may be on


def network_is_managed(rows: Rows, network: str) -> None:
    if not existing(rows, "network", network)["managed"]:
        raise ApiError("NETWORK_UNMANAGED", network)


def alone_on(rows: Rows, network: str, host: str) -> None:
    """A host has one interface on a network."""
    for ref in existing(rows, "network", network)["PIFs"]:
        if existing(rows, "PIF", ref)["host"] == host:
            raise ApiError("NETWORK_ALREADY_CONNECTED", host, ref)


def no_trunks(rows: Rows, network: str) -> None:
    for ref in existing(rows, "network", network)["VIFs"]:
        if existing(rows, "VIF", ref)["trunks"]:
            raise ApiError("NETWORK_INCOMPATIBLE_WITH_TRUNKS", network)


def no_vlan_under(rows: Rows, network: str) -> None:
    """For a VIF that carries VLANs itself."""
    for ref in existing(rows, "network", network)["PIFs"]:
        if existing(rows, "PIF", ref)["VLAN"] != UNTAGGED:
            raise ApiError("NETWORK_INCOMPATIBLE_WITH_TRUNKS", network)


def not_on_sriov(rows: Rows, network: str, what: str) -> None:
    """`what`: TUNNEL, BOND or VLAN_ON_BRIDGE."""
    for ref in existing(rows, "network", network)["PIFs"][:1]:
        stack = kinds(rows, ref)
        if stack[0] is Kind.SRIOV or stack[:2] == [Kind.VLAN, Kind.SRIOV]:
            raise ApiError(f"NETWORK_INCOMPATIBLE_WITH_{what}", network)


def network_takes_vlan(rows: Rows, network: str, pif: str) -> None:
    """On a network, VLANs are on virtual functions of equal cards, or none is."""
    if kinds(rows, pif)[0] is not Kind.SRIOV:
        not_on_sriov(rows, network, "VLAN_ON_BRIDGE")
        return
    for ref in existing(rows, "network", network)["PIFs"][:1]:
        if kinds(rows, ref)[:2] != [Kind.VLAN, Kind.SRIOV]:
            raise ApiError("NETWORK_INCOMPATIBLE_WITH_VLAN_ON_SRIOV", network)
        if _card(rows, ref) != _card(rows, pif):
            raise ApiError("NETWORK_HAS_INCOMPATIBLE_VLAN_ON_SRIOV_PIFS", pif, network)


def network_takes_functions(rows: Rows, network: str, pif: str) -> None:
    for ref in existing(rows, "network", network)["PIFs"][:1]:
        if kind(existing(rows, "PIF", ref)) is not Kind.SRIOV:
            raise ApiError("NETWORK_INCOMPATIBLE_WITH_SRIOV", network)
        if _card(rows, ref) != _card(rows, pif):
            raise ApiError("NETWORK_HAS_INCOMPATIBLE_SRIOV_PIFS", pif, network)


def _card(rows: Rows, ref: str) -> tuple[str, str] | None:
    """Vendor and model of the card at the bottom."""
    pci = rows.row("PCI", existing(rows, "PIF", root(rows, ref))["PCI"])
    return None if pci is None else (pci["vendor_id"], pci["device_id"])
