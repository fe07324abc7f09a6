"""What a PIF is made of: the interfaces under it, down to a network card or a bond."""

from __future__ import annotations

from enum import Enum
from typing import Final

from services.api.decisions.rows import Record, Rows, existing, is_null
from shared.errors import internal_error


class Kind(Enum):
    """A PIF is one of these."""

    TUNNEL = "tunnel"
    VLAN = "VLAN"
    SRIOV = "SR-IOV"
    BOND = "bond"
    PHYSICAL = "physical"


ROOTS: Final = frozenset({Kind.BOND, Kind.PHYSICAL})


def kind(pif: Record) -> Kind:
    if pif["tunnel_access_PIF_of"]:
        return Kind.TUNNEL
    if not is_null(pif["VLAN_master_of"]):
        return Kind.VLAN
    if pif["sriov_logical_PIF_of"]:
        return Kind.SRIOV
    if pif["bond_master_of"]:
        return Kind.BOND
    if pif["physical"]:
        return Kind.PHYSICAL
    raise internal_error(f"the interface {pif['uuid']} is of no kind")


def below(rows: Rows, pif: Record) -> str:
    """The PIF that one that is no root lies on."""
    match kind(pif):
        case Kind.TUNNEL:
            found = existing(rows, "tunnel", pif["tunnel_access_PIF_of"][0])["transport_PIF"]
        case Kind.VLAN:
            found = existing(rows, "VLAN", pif["VLAN_master_of"])["tagged_PIF"]
        case _:
            found = existing(rows, "network_sriov", pif["sriov_logical_PIF_of"][0])["physical_PIF"]
    return str(found)


def kinds(rows: Rows, ref: str) -> list[Kind]:
    """From the PIF down to its root. Raises HANDLE_INVALID."""
    pif = existing(rows, "PIF", ref)
    found = [kind(pif)]
    while found[-1] not in ROOTS:
        pif = existing(rows, "PIF", below(rows, pif))
        found.append(kind(pif))
    return found


def root(rows: Rows, ref: str) -> str:
    """The card or bond that it lies on."""
    pif = existing(rows, "PIF", ref)
    while kind(pif) not in ROOTS:
        ref = below(rows, pif)
        pif = existing(rows, "PIF", ref)
    return ref


def in_bond(pif: Record) -> bool:
    return not is_null(pif["bond_slave_of"])
