"""Hosts, the pool, networks."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.decisions import host_operations, network_operations, pool_operations
from shared.datamodel import model
from shared.errors import ApiError
from tests.api.decisions.sample import Sample

DISABLED = "apply_updates enable evacuate provision reboot shutdown vm_migrate vm_resume vm_start"
ENABLED = "enable evacuate provision vm_migrate vm_resume vm_start"


def described(error: ApiError | None) -> list[str] | None:
    return None if error is None else error.description


def test_every_operation_of_hosts_and_pools_is_decided() -> None:
    assert set(host_operations.OPERATIONS) == set(model.enums["host_allowed_operations"].values)
    assert set(pool_operations.OPERATIONS) == set(model.enums["pool_allowed_operations"].values)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"enabled": False}, DISABLED),
        ({"enabled": True}, ENABLED),
        ({"enabled": False, "live": False, "power_on_mode": "IPMI"}, f"{DISABLED} power_on"),
        ({"current_operations": {"t": "evacuate"}}, "enable evacuate vm_start"),
        ({"current_operations": {"t": "provision"}}, "enable vm_migrate vm_resume vm_start"),
        ({"current_operations": {"t": "vm_start"}}, ENABLED),
        ({"enabled": False, "current_operations": {"t": "reboot"}}, "enable evacuate vm_start"),
        (
            {"enabled": False, "current_operations": {"t": "apply_updates"}},
            "evacuate provision vm_migrate vm_resume vm_start",
        ),
    ],
)
def test_a_host_allows_what_the_original_allows(host: dict[str, Any], expected: str) -> None:
    pool = Sample()
    pool.host("host", **host)
    assert host_operations.allowed_operations(pool.rows, "host") == sorted(expected.split())


@pytest.mark.parametrize(
    ("host", "op", "expected"),
    [
        ({}, "reboot", ["HOST_NOT_DISABLED"]),
        ({}, "power_on", ["HOST_IS_LIVE", "host"]),
        ({"live": False}, "power_on", ["HOST_POWER_ON_MODE_DISABLED"]),
        (
            {"current_operations": {"t": "evacuate"}},
            "vm_migrate",
            ["OTHER_OPERATION_IN_PROGRESS", "host", "host", "evacuate", "t"],
        ),
    ],
)
def test_a_host_says_why_not(host: dict[str, Any], op: str, expected: list[str]) -> None:
    pool = Sample()
    pool.host("host", **host)
    assert described(host_operations.check(pool.rows, "host", op)) == expected


def test_the_pool_does_one_thing_at_a_time() -> None:
    pool = Sample()
    pool.pool()
    assert "ha_enable" in pool_operations.allowed_operations(pool.rows, "pool")
    assert described(pool_operations.check(pool.rows, "pool", "ha_disable")) == ["HA_NOT_ENABLED"]
    pool.set("pool", "pool", current_operations={"t": "ha_enable"})
    assert pool_operations.allowed_operations(pool.rows, "pool") == []
    assert described(pool_operations.check(pool.rows, "pool", "sync_updates")) == ["HA_ENABLE_IN_PROGRESS"]
    waits = ["OTHER_OPERATION_IN_PROGRESS", "pool", "pool"]
    assert described(pool_operations.check(pool.rows, "pool", "eject")) == waits
    pool.set("pool", "pool", current_operations={"t": "eject"})
    expected = ["OTHER_OPERATION_IN_PROGRESS", "pool", "pool", "eject", "t"]
    assert described(pool_operations.check(pool.rows, "pool", "sync_updates")) == expected


def test_a_network_goes_only_when_nothing_is_attached_to_it() -> None:
    pool = Sample()
    pool.vm()
    pool.add("network", "network")
    pool.vif()
    assert network_operations.allowed_operations(pool.rows, "network") == []
    assert network_operations.check(pool.rows, "network", "attaching") is None
    assert network_operations.check_destroy(pool.rows, "network") is None
    pool.set("VIF", "vif", currently_attached=True)
    assert described(network_operations.check_destroy(pool.rows, "network")) == ["NETWORK_CONTAINS_VIF", "vif"]
    pool.set("VIF", "vif", currently_attached=False)
    pool.add("PIF", "pif", network="network")
    assert described(network_operations.check_destroy(pool.rows, "network")) == ["NETWORK_CONTAINS_PIF", "pif"]
