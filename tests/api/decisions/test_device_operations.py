"""VBDs and VIFs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.decisions import vbd_operations, vif_operations
from shared.datamodel import model
from shared.errors import ApiError
from tests.api.decisions.sample import Sample


def described(error: ApiError | None) -> list[str] | None:
    return None if error is None else error.description


def with_disk(state: str, kind: str = "hvm", **vbd: Any) -> Sample:
    pool = Sample()
    pool.vm(state=state, kind=kind)
    pool.sr()
    pool.vdi()
    pool.vbd(**vbd)
    return pool


def with_cd(state: str, kind: str = "hvm", full: bool = False, **cd: Any) -> Sample:
    pool = Sample()
    pool.vm(state=state, kind=kind)
    pool.sr()
    pool.vdi("iso", read_only=True)
    pool.cd(vdi="iso" if full else "OpaqueRef:NULL", **cd)
    return pool


def test_every_operation_of_the_model_is_decided() -> None:
    assert set(vbd_operations.OPERATIONS) == set(model.enums["vbd_operations"].values)
    assert set(vif_operations.OPERATIONS) == set(model.enums["vif_operations"].values)


@pytest.mark.parametrize(
    ("state", "kind", "vbd", "expected"),
    [
        ("Halted", "hvm", {}, "attach"),
        ("Running", "hvm", {"currently_attached": True}, "attach pause unpause"),
        ("Running", "pv", {"currently_attached": True}, "attach pause unpause unplug unplug_force"),
        ("Running", "pv", {}, "attach pause plug unpause"),
        ("Running", "pv", {"currently_attached": True, "unpluggable": False}, "attach pause unpause"),
        ("Paused", "pv", {"currently_attached": True}, "attach pause unpause"),
        ("Suspended", "pv", {"currently_attached": True}, "attach"),
        ("Halted", "hvm", {"current_operations": {"t": "attach"}}, ""),
        ("Running", "pv", {"current_operations": {"t": "plug"}}, ""),
        ("Running", "pv", {"current_operations": {"t": "attach"}}, "unpause"),
        ("Running", "pv", {"current_operations": {"t": "pause"}}, "pause unpause"),
    ],
)
def test_a_disk_drive_allows_what_the_original_allows(
    state: str, kind: str, vbd: dict[str, Any], expected: str
) -> None:
    pool = with_disk(state, kind, **vbd)
    assert vbd_operations.allowed_operations(pool.rows, "vbd") == expected.split()


@pytest.mark.parametrize(
    ("state", "kind", "full", "expected"),
    [
        ("Halted", "hvm", False, "attach insert"),
        ("Halted", "hvm", True, "attach eject"),
        ("Running", "pv", False, "attach insert pause plug unpause"),
        ("Running", "hvm", False, "attach insert pause unpause"),
        ("Suspended", "pv", False, "attach"),
    ],
)
def test_a_cd_drive_allows_what_the_original_allows(state: str, kind: str, full: bool, expected: str) -> None:
    pool = with_cd(state, kind, full)
    assert vbd_operations.allowed_operations(pool.rows, "cd") == expected.split()


@pytest.mark.parametrize(
    ("state", "kind", "vbd", "op", "expected"),
    [
        ("Halted", "hvm", {}, "plug", ["VM_BAD_POWER_STATE", "vm", "running", "halted"]),
        ("Halted", "hvm", {}, "pause", ["VM_BAD_POWER_STATE", "vm", "running", "halted"]),
        ("Running", "hvm", {"currently_attached": True}, "plug", ["DEVICE_ALREADY_ATTACHED", "vbd"]),
        ("Running", "hvm", {"reserved": True}, "plug", ["DEVICE_ALREADY_ATTACHED", "vbd"]),
        ("Running", "hvm", {}, "unplug", ["DEVICE_ALREADY_DETACHED", "vbd"]),
        ("Running", "hvm", {}, "plug", ["VM_MISSING_PV_DRIVERS", "vm"]),
        ("Running", "hvm", {"currently_attached": True}, "unplug_force", ["VM_MISSING_PV_DRIVERS", "vm"]),
        ("Running", "pv", {"unpluggable": False}, "unplug", ["VBD_NOT_UNPLUGGABLE", "vbd"]),
        ("Running", "pv", {}, "insert", ["VBD_NOT_REMOVABLE_MEDIA", "vbd"]),
        (
            "Halted",
            "hvm",
            {"current_operations": {"t": "attach"}},
            "attach",
            ["OTHER_OPERATION_IN_PROGRESS", "VBD", "vbd", "attach", "t"],
        ),
    ],
)
def test_a_disk_drive_says_why_not(state: str, kind: str, vbd: dict[str, Any], op: str, expected: list[str]) -> None:
    pool = with_disk(state, kind, **vbd)
    assert described(vbd_operations.check(pool.rows, "vbd", op)) == expected


def test_a_full_drive_takes_no_disc_and_an_empty_one_gives_none() -> None:
    assert described(vbd_operations.check(with_cd("Halted", full=True).rows, "cd", "insert")) == ["VBD_NOT_EMPTY", "cd"]
    assert described(vbd_operations.check(with_cd("Halted").rows, "cd", "eject")) == ["VBD_IS_EMPTY", "cd"]


def test_discs_of_a_suspended_vm_stay() -> None:
    error = vbd_operations.check(with_cd("Suspended", "pv").rows, "cd", "insert")
    assert described(error) == ["VM_BAD_POWER_STATE", "vm", "halted, running", "suspended"]


def test_a_guest_says_whether_it_can_hotplug() -> None:
    pool = with_disk("Running")
    pool.guest("vm", can_use_hotplug_vbd="no")
    error = vbd_operations.check(pool.rows, "vbd", "plug")
    assert error is not None
    assert error.code == "OPERATION_NOT_ALLOWED"
    pool.set("VM_guest_metrics", "vm-guest", can_use_hotplug_vbd="yes")
    assert vbd_operations.check(pool.rows, "vbd", "plug") is None


@pytest.mark.parametrize("op", ["clean_shutdown", "hard_shutdown", "suspend", "pause"])
def test_nothing_is_plugged_while_the_vm_goes_down(op: str) -> None:
    pool = with_disk("Running", "pv")
    pool.set("VM", "vm", current_operations={"t": op})
    error = vbd_operations.check(pool.rows, "vbd", "plug")
    assert error is not None
    assert error.code == "OPERATION_NOT_ALLOWED"


def test_a_disk_that_is_being_worked_on_is_not_opened_unless_it_is_copied_or_mirrored() -> None:
    pool = with_disk("Halted")
    pool.set("VDI", "vdi", current_operations={"t": "resize"})
    expected = ["OTHER_OPERATION_IN_PROGRESS", "VDI", "vdi", "resize", "t"]
    assert described(vbd_operations.check(pool.rows, "vbd", "attach")) == expected
    for harmless in ("copy", "mirror"):
        pool.set("VDI", "vdi", current_operations={"t": harmless})
        assert vbd_operations.check(pool.rows, "vbd", "attach") is None


def test_a_hidden_disk_is_not_opened() -> None:
    pool = with_disk("Halted")
    pool.set("VDI", "vdi", managed=False)
    assert described(vbd_operations.check(pool.rows, "vbd", "attach")) == ["VDI_NOT_MANAGED", "vbd"]


@pytest.mark.parametrize(
    ("mine", "other", "in_use"),
    [("RW", "RW", True), ("RW", "RO", True), ("RO", "RW", True), ("RO", "RO", False)],
)
def test_a_disk_has_one_writer_or_many_readers(mine: str, other: str, in_use: bool) -> None:
    pool = with_disk("Halted", "pv", mode=mine)
    pool.vm("vm2", state="Running", kind="pv")
    pool.vbd("vbd2", vm="vm2", mode=other, currently_attached=True)
    expected = ["VDI_IN_USE", "vdi"] if in_use else None
    assert described(vbd_operations.check(pool.rows, "vbd", "attach")) == expected
    assert "attach" in vbd_operations.allowed_operations(pool.rows, "vbd"), "the list is optimistic"


@pytest.mark.parametrize(
    "why",
    [
        {"vdi": {"sharable": True}},
        {"vm2": {"power_state": "Suspended"}},
        {"vm2": {"is_control_domain": True}},
        {"vbd2": {"currently_attached": False}},
    ],
)
def test_some_users_of_a_disk_do_not_mind_another(why: dict[str, dict[str, Any]]) -> None:
    pool = with_disk("Halted", "pv")
    pool.vm("vm2", state="Running", kind="pv")
    pool.vbd("vbd2", vm="vm2", currently_attached=True)
    for ref, fields in why.items():
        pool.set({"vdi": "VDI", "vm2": "VM", "vbd2": "VBD"}[ref], ref, **fields)
    assert vbd_operations.check(pool.rows, "vbd", "attach") is None


def test_a_disk_is_taken_by_who_is_about_to_open_it() -> None:
    pool = with_disk("Halted", "pv")
    pool.vm("vm2", kind="pv")
    pool.vbd("vbd2", vm="vm2", current_operations={"t": "attach"})
    assert described(vbd_operations.check(pool.rows, "vbd", "attach")) == ["VDI_IN_USE", "vdi"]


def test_a_read_only_disk_is_not_opened_for_writing() -> None:
    pool = with_disk("Halted")
    pool.set("VDI", "vdi", read_only=True)
    assert described(vbd_operations.check(pool.rows, "vbd", "attach")) == ["VDI_READONLY", "vdi"]


def test_an_hvm_guest_gets_no_read_only_disk_by_hotplug() -> None:
    pool = with_disk("Running", mode="RO")
    pool.guest("vm", drivers=True)
    error = vbd_operations.check(pool.rows, "vbd", "plug")
    assert described(error) == ["DISK_VBD_MUST_BE_READWRITE_FOR_HVM", "vbd"]


def test_the_disc_to_insert_is_the_one_that_is_checked() -> None:
    pool = with_cd("Halted")
    pool.set("VDI", "iso", current_operations={"t": "destroy"})
    expected = ["OTHER_OPERATION_IN_PROGRESS", "VDI", "iso", "destroy", "t"]
    assert described(vbd_operations.check(pool.rows, "cd", "insert", vdi="iso")) == expected
    with pytest.raises(ApiError, match="HANDLE_INVALID"):
        vbd_operations.check(pool.rows, "cd", "insert", vdi="gone")


@given(
    state=st.sampled_from(["Halted", "Running", "Paused", "Suspended"]),
    kind=st.sampled_from(["hvm", "pv"]),
    attached=st.booleans(),
    busy=st.booleans(),
    cd=st.booleans(),
    empty=st.booleans(),
)
def test_an_operation_of_a_vbd_is_listed_exactly_when_its_check_passes(
    state: str, kind: str, attached: bool, busy: bool, cd: bool, empty: bool
) -> None:
    pool = with_cd(state, kind, full=not empty) if cd else with_disk(state, kind)
    ref = "cd" if cd else "vbd"
    pool.set("VBD", ref, currently_attached=attached, current_operations={"t": "plug"} if busy else {})
    allowed = vbd_operations.allowed_operations(pool.rows, ref)
    passes = [
        op for op in vbd_operations.OPERATIONS if vbd_operations.check(pool.rows, ref, op, asserting=False) is None
    ]
    assert allowed == sorted(passes)


# ---- VIFs


def with_vif(state: str, kind: str = "hvm", **vif: Any) -> Sample:
    pool = Sample()
    pool.vm(state=state, kind=kind)
    pool.add("network", "network")
    pool.vif(**vif)
    return pool


@pytest.mark.parametrize(
    ("state", "kind", "vif", "expected"),
    [
        ("Halted", "hvm", {}, "attach"),
        ("Running", "pv", {"currently_attached": True}, "attach unplug"),
        ("Running", "pv", {}, "attach plug"),
        ("Running", "hvm", {}, "attach"),
        ("Paused", "pv", {"currently_attached": True}, "attach"),
        ("Running", "pv", {"current_operations": {"t": "plug"}}, ""),
    ],
)
def test_a_network_interface_allows_what_the_original_allows(
    state: str, kind: str, vif: dict[str, Any], expected: str
) -> None:
    pool = with_vif(state, kind, **vif)
    assert vif_operations.allowed_operations(pool.rows, "vif") == expected.split()


@pytest.mark.parametrize(
    ("state", "kind", "vif", "op", "expected"),
    [
        ("Halted", "hvm", {}, "plug", ["VM_BAD_POWER_STATE", "vm", "running", "halted"]),
        ("Halted", "hvm", {}, "unplug", ["VM_BAD_POWER_STATE", "vm", "running", "halted"]),
        ("Running", "pv", {}, "unplug", ["DEVICE_ALREADY_DETACHED", "vif"]),
        ("Running", "pv", {"currently_attached": True}, "plug", ["DEVICE_ALREADY_ATTACHED", "vif"]),
        ("Running", "hvm", {}, "plug", ["VM_MISSING_PV_DRIVERS", "vm"]),
    ],
)
def test_a_network_interface_says_why_not(
    state: str, kind: str, vif: dict[str, Any], op: str, expected: list[str]
) -> None:
    pool = with_vif(state, kind, **vif)
    assert described(vif_operations.check(pool.rows, "vif", op)) == expected


def test_control_domains_and_sriov_networks_do_not_hotplug() -> None:
    pool = with_vif("Running", "pv")
    pool.set("VM", "vm", is_control_domain=True)
    error = vif_operations.check(pool.rows, "vif", "plug")
    assert error is not None
    assert error.code == "OPERATION_NOT_ALLOWED"
    pool.set("VM", "vm", is_control_domain=False)
    pool.add("PIF", "pif", network="network")
    pool.add("network_sriov", "sriov", logical_PIF="pif")
    error = vif_operations.check(pool.rows, "vif", "plug")
    assert error is not None
    assert error.code == "OPERATION_NOT_ALLOWED"
