"""Where a host has to serve disks, from the pool's rows."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.decisions.nbd import serving
from services.api.decisions.rows import TableRows
from shared.contracts.nbd import Serving

PIFS: dict[str, dict[str, Any]] = {
    "own": {"network": "a", "IP": "10.0.0.1", "IPv6": ["fd00::1/64", "fe80::1/64", ""], "currently_attached": True},
    "elsewhere": {"network": "b", "IP": "10.1.0.1", "IPv6": [], "currently_attached": True},
    "down": {"network": "a", "IP": "10.2.0.1", "IPv6": [], "currently_attached": False},
    "bare": {"network": "a", "IP": "", "IPv6": [], "currently_attached": True},
}
ADDRESSES = ["10.0.0.1", "fd00::1"]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param(["nbd"], [], Serving(ADDRESSES, tls=True), id="TLS"),
        pytest.param(["insecure_nbd"], [], Serving(ADDRESSES, tls=False), id="no TLS"),
        pytest.param(
            ["insecure_nbd"], ["insecure_nbd"], Serving(["10.0.0.1", "10.1.0.1", "fd00::1"], tls=False), id="two"
        ),
        pytest.param(["nbd"], ["insecure_nbd"], Serving(), id="contradiction"),
        pytest.param([], [], Serving(), id="none"),
    ],
)
def test_a_host_serves_where_its_attached_interfaces_have_addresses_of_their_own(
    a: list[str], b: list[str], expected: Serving
) -> None:
    others = {"another host's": {**PIFS["own"], "host": "other", "IP": "10.3.0.1", "IPv6": []}}
    rows = TableRows(
        {
            "network": {"a": {"purpose": a}, "b": {"purpose": b}},
            "PIF": {ref: {**row, "host": "host"} for ref, row in PIFS.items()} | others,
        }
    )
    assert serving(rows, "host") == expected
