"""What PIFs lie on."""

from __future__ import annotations

import pytest

from services.api.decisions import pif_topology
from services.api.decisions.pif_topology import Kind
from shared.errors import ApiError
from tests.api.decisions.sample import Sample


def vlan_on(below: str) -> Sample:
    """A VLAN's PIF, `pif`, with its card, `card`, and what the VLAN says it lies on."""
    pool = Sample()
    pool.add("PIF", "card", physical=True)
    pool.add("PIF", "pif", VLAN_master_of="vlan")
    pool.add("VLAN", "vlan", untagged_PIF="pif", tagged_PIF=below)
    return pool


def test_a_vlan_lies_on_its_card() -> None:
    rows = vlan_on("card").rows
    assert pif_topology.kinds(rows, "pif") == [Kind.VLAN, Kind.PHYSICAL]
    assert pif_topology.root(rows, "pif") == "card"


def test_one_that_lies_on_itself_is_refused_instead_of_followed_for_ever() -> None:
    rows = vlan_on("pif").rows
    for look in (pif_topology.kinds, pif_topology.root):
        with pytest.raises(ApiError, match="lies on itself"):
            look(rows, "pif")
