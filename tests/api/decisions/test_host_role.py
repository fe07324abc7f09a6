"""What a host should be, by the rows."""

from __future__ import annotations

import pytest

from services.api.decisions.host_role import due
from services.api.decisions.rows import TableRows
from shared.host_role import BROKEN, COORDINATOR, HostRole, member_of

HOSTS = {
    "one": {"uuid": "uuid-1", "address": "10.0.0.1"},
    "two": {"uuid": "uuid-2", "address": "10.0.0.2"},
    "new": {"uuid": "uuid-3", "address": ""},
}


def rows(master: str) -> TableRows:
    return TableRows({"pool": {"pool": {"master": master}}, "host": HOSTS})


@pytest.mark.parametrize(
    ("master", "host", "role", "expected"),
    [
        ("one", "uuid-1", COORDINATOR, None),
        ("one", "uuid-2", member_of("10.0.0.1"), None),
        ("two", "uuid-1", COORDINATOR, member_of("10.0.0.2")),
        ("two", "uuid-2", member_of("10.0.0.1"), COORDINATOR),
        ("two", "uuid-3", member_of("10.0.0.1"), member_of("10.0.0.2")),
        ("two", "uuid-3", BROKEN, member_of("10.0.0.2")),
        ("two", "uuid-2", BROKEN, COORDINATOR),
        ("new", "uuid-1", COORDINATOR, None),
        ("gone", "uuid-1", COORDINATOR, None),
        ("OpaqueRef:NULL", "uuid-1", COORDINATOR, None),
    ],
)
def test_a_host_is_what_the_pools_master_says(
    master: str, host: str, role: HostRole, expected: HostRole | None
) -> None:
    assert due(rows(master), [host], role) == expected


def test_without_rows_a_host_stays_what_it_is() -> None:
    assert due(TableRows({}), ["uuid-1"], COORDINATOR) is None


def test_simulated_hosts_that_share_a_process_are_members_together() -> None:
    assert due(rows("one"), ["uuid-2", "uuid-3"], member_of("10.0.0.9")) == member_of("10.0.0.1")
