"""Rows of SR types: what one host says counts for all only when all say it."""

from __future__ import annotations

from typing import Any

from services.api.decisions import sm_rows
from services.api.decisions.rows import TableRows
from shared.contracts.db import Create, Delete, Update
from shared.contracts.storage import DriverInfo


def driver(**features: int) -> DriverInfo:
    return DriverInfo(
        type="nfs",
        name="NFS",
        description="",
        vendor="v",
        copyright="",
        version="1.0",
        required_api_version="1.0",
        features=features,
        configuration={"server": "where"},
        supported_image_formats=["vhd", "odd"],
    )


class Pool:
    """Two hosts and what they have said."""

    def __init__(self) -> None:
        self.sm: dict[str, dict[str, Any]] = {}
        self.sr: dict[str, dict[str, Any]] = {}

    @property
    def rows(self) -> TableRows:
        return TableRows({"SM": self.sm, "SR": self.sr, "host": {"a": {}, "b": {}}})

    def say(self, host: str, info: DriverInfo) -> int:
        changes = sm_rows.reported(self.rows, host, [info])
        for change in changes:
            if isinstance(change, Create):
                self.sm[change.ref] = {"host_pending_features": {}, **change.fields}
            elif isinstance(change, Update):
                self.sm[change.ref] |= change.fields
        return len(changes)

    @property
    def row(self) -> dict[str, Any]:
        [row] = self.sm.values()
        return row


def test_what_is_new_waits_until_all_hosts_have_it() -> None:
    pool = Pool()
    pool.say("a", driver(VDI_CREATE=1, VDI_DELETE=1))
    assert pool.row["capabilities"] == ["VDI_CREATE", "VDI_DELETE"]
    assert pool.row["supported_image_formats"] == ["vhd"]
    assert pool.say("b", driver(VDI_CREATE=1, VDI_DELETE=1)) == 0
    pool.say("a", driver(VDI_CREATE=1, VDI_DELETE=1, VDI_CLONE=2))
    assert "VDI_CLONE" not in pool.row["features"]
    assert pool.row["host_pending_features"] == {"a": ["VDI_CLONE/2"]}
    pool.say("b", driver(VDI_CREATE=1, VDI_DELETE=1, VDI_CLONE=1))
    assert pool.row["features"] == {"VDI_CREATE": 1, "VDI_DELETE": 1, "VDI_CLONE": 1}
    assert pool.row["host_pending_features"] == {}


def test_what_one_host_lacks_is_gone_at_once() -> None:
    pool = Pool()
    pool.say("a", driver(VDI_CREATE=1, VDI_CLONE=1))
    pool.say("b", driver(VDI_CREATE=1))
    assert pool.row["features"] == {"VDI_CREATE": 1}


def test_types_that_nobody_has_and_nobody_needs_are_removed() -> None:
    pool = Pool()
    pool.say("a", driver(VDI_CREATE=1))
    [ref] = pool.sm
    assert sm_rows.removed(pool.rows, {"nfs"}) == []
    pool.sr["sr"] = {"type": "nfs"}
    assert sm_rows.removed(pool.rows, set()) == []
    pool.sr.clear()
    assert sm_rows.removed(pool.rows, set()) == [Delete(cls="SM", ref=ref)]
