"""What a PIF is made of: the interfaces under it, down to a network card or a bond."""

from __future__ import annotations

from collections.abc import Iterator
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


def down(rows: Rows, ref: str) -> Iterator[tuple[str, Kind]]:
    """The PIF and what it lies on, down to its root. Raises HANDLE_INVALID; INTERNAL_ERROR for one that lies on itself,
    which records that clients introduced can come to.
    """
    seen: set[str] = set()
    while ref not in seen:
        seen.add(ref)
        pif = existing(rows, "PIF", ref)
        found = kind(pif)
        yield ref, found
        if found in ROOTS:
            return
        ref = below(rows, pif)
    raise internal_error(f"the interface {ref} lies on itself")


def kinds(rows: Rows, ref: str) -> list[Kind]:
    """From the PIF down to its root. Raises HANDLE_INVALID."""
    return [found for _, found in down(rows, ref)]


def root(rows: Rows, ref: str) -> str:
    """The card or bond that it lies on."""
    *_, (found, _) = down(rows, ref)
    return found


def in_bond(pif: Record) -> bool:
    return not is_null(pif["bond_slave_of"])
