"""VDIs, SRs and PBDs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.decisions import pbd_operations, sr_operations, vdi_operations
from shared.datamodel import model
from shared.errors import ApiError
from tests.api.decisions.sample import ALL_FEATURES, Sample

FIXTURE = "VDI_CREATE VDI_DELETE VDI_CLONE VDI_SNAPSHOT VDI_RESIZE VDI_INTRODUCE VDI_UPDATE VDI_RESET_ON_BOOT SR_UPDATE"
"""What the driver of the recorded answers can do."""

IDLE = "clone copy destroy forget resize snapshot update"


def described(error: ApiError | None) -> list[str] | None:
    return None if error is None else error.description


def with_disk(features: str = FIXTURE, **vdi: Any) -> Sample:
    pool = Sample()
    pool.pool()
    pool.host("host")
    pool.sr(hosts=("host",), features=features)
    pool.vdi(**vdi)
    return pool


def in_use(pool: Sample, **vbd: Any) -> Sample:
    pool.vm(state="Running")
    pool.vbd(currently_attached=True, **vbd)
    return pool


def test_every_operation_of_a_disk_is_decided() -> None:
    assert set(vdi_operations.OPERATIONS) == set(model.enums["vdi_operations"].values)


@pytest.mark.parametrize(
    ("vdi", "expected"),
    [
        ({}, IDLE),
        ({"type": "ha_statefile"}, "clone destroy forget resize snapshot update"),
        ({"on_boot": "reset"}, "clone destroy forget resize update"),
        ({"sharable": True}, "clone copy destroy forget resize update"),
        ({"type": "rrd"}, "clone copy resize snapshot update"),
        ({"type": "cbt_metadata"}, "destroy forget update"),
        ({"current_operations": {"t": "copy"}}, "clone copy destroy forget resize update"),
        ({"current_operations": {"t": "mirror"}}, "destroy"),
        ({"current_operations": {"t": "resize"}}, ""),
    ],
)
def test_an_idle_disk_allows_what_the_original_allows(vdi: dict[str, Any], expected: str) -> None:
    assert vdi_operations.allowed_operations(with_disk(**vdi).rows, "vdi") == expected.split()


def test_a_disk_in_use_can_only_be_cloned_and_snapshotted() -> None:
    assert vdi_operations.allowed_operations(in_use(with_disk()).rows, "vdi") == ["clone", "snapshot"]


def test_a_disk_that_is_only_read_can_be_copied_too() -> None:
    pool = in_use(with_disk(), mode="RO")
    assert vdi_operations.allowed_operations(pool.rows, "vdi") == ["clone", "copy", "snapshot"]


@pytest.mark.parametrize("op", ["destroy", "resize", "forget"])
def test_a_disk_in_use_is_not_taken_away(op: str) -> None:
    error = vdi_operations.check(in_use(with_disk()).rows, "vdi", op)
    assert described(error) == ["VDI_IN_USE", "vdi", op]


def test_a_disk_that_is_being_opened_waits() -> None:
    pool = with_disk()
    pool.vm()
    pool.vbd(current_operations={"t": "attach"})
    expected = ["OTHER_OPERATION_IN_PROGRESS", "VBD", "vbd", "attach", "t"]
    assert described(vdi_operations.check(pool.rows, "vdi", "snapshot")) == expected


@pytest.mark.parametrize(
    ("vdi", "op", "expected"),
    [
        ({"type": "cbt_metadata"}, "clone", ["VDI_INCOMPATIBLE_TYPE", "vdi", "CBT metadata"]),
        ({"cbt_enabled": True}, "mirror", ["VDI_CBT_ENABLED", "vdi"]),
        ({"sharable": True}, "snapshot", ["VDI_IS_SHARABLE", "vdi"]),
        ({"on_boot": "reset"}, "copy", ["VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"]),
        ({"type": "rrd"}, "destroy", ["VDI_HAS_RRDS", "vdi"]),
        ({"type": "rrd"}, "forget", ["VDI_HAS_RRDS", "vdi"]),
        ({"is_a_snapshot": True}, "data_destroy", ["VDI_NO_CBT_METADATA", "vdi"]),
        ({}, "revert_to", ["REVERT_ONLY_ALLOWED_ON_SNAPSHOT"]),
        ({"type": "suspend"}, "enable_cbt", ["VDI_INCOMPATIBLE_TYPE", "vdi", "Suspend"]),
        ({"managed": False}, "clone", ["VDI_NOT_MANAGED", "vdi"]),
        (
            {"current_operations": {"t": "clone"}},
            "destroy",
            ["OTHER_OPERATION_IN_PROGRESS", "VDI", "vdi", "clone", "t"],
        ),
    ],
)
def test_a_disk_says_why_not(vdi: dict[str, Any], op: str, expected: list[str]) -> None:
    assert described(vdi_operations.check(with_disk(ALL_FEATURES, **vdi).rows, "vdi", op)) == expected


def test_what_the_driver_cannot_do_is_refused_in_the_name_of_the_sr() -> None:
    error = vdi_operations.check(with_disk().rows, "vdi", "resize_online")
    assert described(error) == ["SR_OPERATION_NOT_SUPPORTED", "sr"]


def test_a_disk_is_not_resized_when_its_sr_is_nowhere() -> None:
    pool = with_disk()
    pool.set("PBD", "sr-on-host", currently_attached=False)
    assert described(vdi_operations.check(pool.rows, "vdi", "resize")) == ["SR_HAS_NO_PBDS", "sr"]


def test_disks_that_high_availability_needs_stay() -> None:
    pool = with_disk(type="ha_statefile")
    pool.set("pool", "pool", ha_enabled=True)
    assert described(vdi_operations.check(pool.rows, "vdi", "destroy")) == ["HA_IS_ENABLED"]
    assert described(vdi_operations.check(pool.rows, "vdi", "resize")) == ["HA_IS_ENABLED"]
    pool.set("pool", "pool", ha_enabled=False, current_operations={"t": "ha_enable"})
    assert described(vdi_operations.check(pool.rows, "vdi", "destroy")) == ["HA_ENABLE_IN_PROGRESS"]


@given(
    kind=st.sampled_from(["user", "system", "rrd", "cbt_metadata", "ha_statefile", "suspend"]),
    running=st.none() | st.sampled_from(vdi_operations.OPERATIONS),
    used=st.booleans(),
    flags=st.fixed_dictionaries({name: st.booleans() for name in ("sharable", "is_a_snapshot", "cbt_enabled")}),
)
def test_an_operation_of_a_disk_is_listed_exactly_when_its_check_passes(
    kind: str, running: str | None, used: bool, flags: dict[str, Any]
) -> None:
    pool = with_disk(type=kind, current_operations={"t": running} if running else {}, **flags)
    if used:
        in_use(pool)
    allowed = vdi_operations.allowed_operations(pool.rows, "vdi")
    listed = vdi_operations.LISTED
    assert allowed == [op for op in listed if vdi_operations.check(pool.rows, "vdi", op) is None]


# ---- SRs

SR_IDLE = """pbd_create pbd_destroy plug scan unplug update vdi_clone vdi_create vdi_destroy vdi_introduce vdi_resize
    vdi_set_on_boot vdi_snapshot"""


def test_an_attached_sr_allows_what_the_original_allows() -> None:
    pool = with_disk()
    assert sr_operations.allowed_operations(pool.rows, "sr") == SR_IDLE.split()


def test_a_detached_empty_sr_can_be_destroyed_and_forgotten() -> None:
    pool = with_disk()
    pool.set("PBD", "sr-on-host", currently_attached=False)
    assert described(sr_operations.check(pool.rows, "sr", "destroy")) == ["SR_NOT_EMPTY"]
    assert sr_operations.check(pool.rows, "sr", "forget") is None
    pool.set("VDI", "vdi", managed=False)
    assert sr_operations.allowed_operations(pool.rows, "sr") == sorted([*SR_IDLE.split(), "destroy", "forget"])


def test_an_attached_sr_is_neither_destroyed_nor_forgotten() -> None:
    pool = with_disk()
    for op in ("destroy", "forget"):
        assert described(sr_operations.check(pool.rows, "sr", op)) == ["SR_HAS_PBD", "sr"]


def test_an_sr_without_pbds_cannot_be_destroyed() -> None:
    pool = Sample()
    pool.sr()
    assert described(sr_operations.check(pool.rows, "sr", "destroy")) == ["SR_HAS_NO_PBDS", "sr"]


def test_the_tools_sr_keeps_its_disks() -> None:
    pool = with_disk()
    pool.set("SR", "sr", is_tools_sr=True)
    for op in ("vdi_create", "vdi_destroy"):
        assert described(sr_operations.check(pool.rows, "sr", op)) == ["SR_OPERATION_NOT_SUPPORTED", "sr"]


def test_an_sr_does_one_thing_at_a_time_but_many_hosts_may_plug_it() -> None:
    pool = with_disk()
    pool.set("SR", "sr", current_operations={"t": "scan"})
    expected = ["OTHER_OPERATION_IN_PROGRESS", "SR", "sr", "scan", "t"]
    assert described(sr_operations.check(pool.rows, "sr", "vdi_create")) == expected
    assert sr_operations.allowed_operations(pool.rows, "sr") == []
    pool.set("SR", "sr", current_operations={"t": "plug"})
    assert sr_operations.allowed_operations(pool.rows, "sr") == ["plug"]


def test_an_sr_of_an_unknown_type_can_only_be_let_go() -> None:
    pool = Sample()
    pool.add("SR", "sr", type="gone")
    assert described(sr_operations.check(pool.rows, "sr", "vdi_create")) == ["SR_OPERATION_NOT_SUPPORTED", "sr"]
    assert sr_operations.check(pool.rows, "sr", "forget") is None


# ---- PBDs


def test_an_sr_has_one_pbd_per_host() -> None:
    pool = with_disk()
    error = pbd_operations.check_create(pool.rows, "host", "sr", {})
    assert described(error) == ["PBD_EXISTS", "sr", "host", "sr-on-host"]
    pool.host("host2")
    assert pbd_operations.check_create(pool.rows, "host2", "sr", {}) is None


def test_an_sr_that_is_not_shared_is_plugged_on_one_host() -> None:
    pool = with_disk()
    pool.host("host2")
    pool.add("PBD", "second", SR="sr", host="host2")
    assert described(pbd_operations.check_plug(pool.rows, "second")) == ["SR_NOT_SHARABLE", "sr", "host"]
    pool.set("SR", "sr", shared=True)
    assert pbd_operations.check_plug(pool.rows, "second") is None


def test_a_pbd_stays_plugged_while_a_vm_of_its_host_holds_a_disk() -> None:
    pool = in_use(with_disk())
    assert pbd_operations.check_unplug(pool.rows, "sr-on-host") is None
    pool.set("VM", "vm", resident_on="host")
    assert described(pbd_operations.check_unplug(pool.rows, "sr-on-host")) == ["VDI_IN_USE", "vdi"]


def test_a_plugged_pbd_is_not_destroyed() -> None:
    pool = with_disk()
    error = pbd_operations.check_destroy(pool.rows, "sr-on-host")
    assert error is not None
    assert error.code == "OPERATION_NOT_ALLOWED"
    pool.set("PBD", "sr-on-host", currently_attached=False)
    assert pbd_operations.check_destroy(pool.rows, "sr-on-host") is None
