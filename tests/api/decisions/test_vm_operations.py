from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.decisions import vm_operations
from services.api.decisions.vm_operations import ANY_STATE, LISTED, NEVER_LISTED, OPERATIONS, POWER_STATES
from shared.datamodel import model
from tests.api.decisions.sample import Sample

CHANGES = "changing_dynamic_range changing_static_range changing_shadow_memory changing_NVRAM"
HALTED = f"""{CHANGES} clone copy create_vtpm destroy export make_into_template metadata_export migrate_send
    snapshot start start_on"""
RUNNING = """changing_VCPUs_live changing_dynamic_range checkpoint clean_reboot clean_shutdown hard_reboot
    hard_shutdown metadata_export migrate_send pause pool_migrate snapshot suspend sysprep"""
WITHOUT_AGENT = "changing_dynamic_range hard_reboot hard_shutdown metadata_export pause snapshot sysprep"
SUSPENDED = """checkpoint destroy export hard_shutdown metadata_export migrate_send resume resume_on snapshot"""
TEMPLATE = f"{CHANGES} clone copy destroy export metadata_export migrate_send provision"
SNAPSHOT = "clone copy destroy export metadata_export revert"


def template(**more: Any) -> dict[str, Any]:
    return {"is_a_template": True, **more}


@pytest.mark.parametrize(
    ("state", "kind", "fields", "expected"),
    [
        ("Halted", "hvm", {}, HALTED),
        ("Running", "pv", {}, RUNNING),
        ("Running", "pvh", {}, RUNNING),
        ("Running", "hvm", {}, WITHOUT_AGENT),
        ("Paused", "pv", {}, "checkpoint hard_reboot hard_shutdown metadata_export snapshot unpause"),
        ("Paused", "hvm", {}, "hard_reboot hard_shutdown metadata_export snapshot unpause"),
        ("Suspended", "pv", {}, SUSPENDED),
        ("Halted", "hvm", template(), TEMPLATE),
        (
            "Halted",
            "hvm",
            template(is_default_template=True),
            f"{CHANGES} clone copy export metadata_export provision",
        ),
        ("Halted", "hvm", template(is_a_snapshot=True), SNAPSHOT),
        ("Suspended", "hvm", template(is_a_snapshot=True), f"{SNAPSHOT} hard_shutdown"),
        (
            "Running",
            "pv",
            {"is_control_domain": True, "domid": 0},
            "changing_dynamic_range changing_static_range metadata_export",
        ),
    ],
)
def test_each_kind_of_vm_allows_what_the_original_allows(
    state: str, kind: str, fields: dict[str, Any], expected: str
) -> None:
    pool = Sample()
    vm = pool.vm(state=state, kind=kind, **fields)
    assert vm_operations.allowed_operations(pool.rows, vm) == sorted(expected.split())


def test_every_operation_of_the_model_has_its_power_states() -> None:
    assert set(OPERATIONS) == set(model.enums["vm_operations"].values)
    assert set(OPERATIONS) >= NEVER_LISTED


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("state", ANY_STATE)
def test_an_operation_in_the_wrong_power_state_is_refused_with_the_states_it_needs(op: str, state: str) -> None:
    pool = Sample()
    pool.vm(state=state, kind="pv")
    error = vm_operations.check(pool.rows, "vm", op)
    if state in POWER_STATES[op]:
        assert error is None or error.code != "VM_BAD_POWER_STATE"
    else:
        expected = ", ".join(POWER_STATES[op]).lower()
        assert error is not None
        assert error.description == ["VM_BAD_POWER_STATE", "vm", expected, state.lower()]


def refusal(pool: Sample, op: str, strict: bool = True) -> list[str] | None:
    error = vm_operations.check(pool.rows, "vm", op, strict)
    return None if error is None else error.description


def test_a_vm_that_is_gone_is_an_invalid_handle() -> None:
    assert refusal(Sample(), "start") == ["HANDLE_INVALID", "VM", "vm"]


def test_a_blocked_operation_says_why_before_anything_else() -> None:
    pool = Sample()
    pool.vm(state="Running", blocked_operations={"start": "because"}, current_operations={"task": "pause"})
    assert refusal(pool, "start") == ["OPERATION_BLOCKED", "vm", "because"]


@pytest.mark.parametrize(
    ("current", "op", "state", "allowed"),
    [
        (["clone"], "copy", "Halted", True),
        (["clone", "export"], "clone", "Halted", True),
        (["clone", "start"], "clone", "Halted", False),
        (["clone"], "start", "Halted", False),
        (["snapshot"], "checkpoint", "Running", True),
        (["snapshot"], "clone", "Halted", False),
        (["get_boot_record"], "get_boot_record", "Running", True),
        (["clean_shutdown"], "hard_shutdown", "Running", True),
        (["clean_shutdown", "hard_reboot"], "hard_shutdown", "Running", True),
        (["hard_shutdown"], "hard_shutdown", "Running", False),
        (["clean_reboot"], "hard_reboot", "Running", True),
        (["hard_reboot"], "hard_reboot", "Running", False),
        (["hard_shutdown"], "hard_reboot", "Running", False),
        (["migrate_send"], "metadata_export", "Running", True),
        (["migrate_send"], "clean_shutdown", "Running", True),
        (["migrate_send", "snapshot"], "clean_shutdown", "Running", False),
        (["migrate_send"], "pause", "Running", False),
        (["snapshot_with_quiesce"], "snapshot", "Running", True),
        (["snapshot_with_quiesce", "snapshot"], "snapshot", "Running", False),
    ],
)
def test_operations_exclude_each_other_but_for_the_exceptions(
    current: list[str], op: str, state: str, allowed: bool
) -> None:
    pool = Sample()
    pool.vm(state=state, kind="pv", current_operations={f"t{i}": name for i, name in enumerate(current)})
    error = refusal(pool, op)
    if allowed:
        assert error is None
    else:
        assert error is not None
        assert error[:3] == ["OTHER_OPERATION_IN_PROGRESS", "VM", "vm"]


def test_several_operations_in_progress_are_named_together() -> None:
    pool = Sample()
    pool.vm(current_operations={"t1": "clone", "t2": "copy"})
    assert refusal(pool, "start") == ["OTHER_OPERATION_IN_PROGRESS", "VM", "vm", "{clone,copy}", "{t1,t2}"]


def test_one_operation_in_progress_is_named_with_its_task() -> None:
    pool = Sample()
    pool.vm(current_operations={"t1": "clone"})
    assert refusal(pool, "start") == ["OTHER_OPERATION_IN_PROGRESS", "VM", "vm", "clone", "t1"]


@pytest.mark.parametrize(
    ("fields", "op", "expected"),
    [
        ({"is_a_template": True}, "start", ["VM_IS_TEMPLATE", "vm", "start"]),
        ({"is_a_template": True, "is_default_template": True}, "destroy", ["VM_IS_TEMPLATE", "vm", "destroy"]),
        ({"is_a_template": True, "is_a_snapshot": True}, "start", ["VM_IS_SNAPSHOT", "vm", "start"]),
        ({}, "provision", ["PROVISION_ONLY_ALLOWED_ON_TEMPLATE"]),
        ({}, "revert", ["REVERT_ONLY_ALLOWED_ON_SNAPSHOT"]),
        ({"appliance": "gone"}, "make_into_template", None),
        ({"snapshot_schedule": "s"}, "make_into_template", ["VM_ASSIGNED_TO_SNAPSHOT_SCHEDULE", "vm", "s"]),
        ({}, "query_services", ["NOT_SYSTEM_DOMAIN", "vm"]),
        ({"other_config": {"is_system_domain": "true"}}, "query_services", None),
    ],
)
def test_a_halted_vm_refuses_for_what_it_is(fields: dict[str, Any], op: str, expected: list[str] | None) -> None:
    pool = Sample()
    pool.vm(**fields)
    assert refusal(pool, op) == expected


def test_a_halted_vm_with_a_pci_device_is_not_migrated() -> None:
    pool = Sample()
    pool.vm()
    pool.add("PCI", "pci", attached_VMs=["vm"])
    assert refusal(pool, "migrate_send") == ["VM_HAS_PCI_ATTACHED", "vm"]


def test_a_vm_of_an_appliance_does_not_become_a_template() -> None:
    pool = Sample()
    pool.vm(appliance=pool.add("VM_appliance", "app"))
    assert refusal(pool, "make_into_template") == ["VM_IS_PART_OF_AN_APPLIANCE", "vm", "app"]


@pytest.mark.parametrize("op", ["query_services", "changing_memory_limits"])
def test_operations_that_the_original_has_no_name_for_are_not_named(op: str) -> None:
    pool = Sample()
    pool.vm(is_a_template=True, is_a_snapshot=True)
    assert refusal(pool, op) == ["VM_IS_SNAPSHOT", "vm", "(unknown operation)"]


def test_a_second_virtual_tpm_is_refused() -> None:
    pool = Sample()
    pool.vm()
    pool.add("VTPM", "vtpm", VM="vm")
    assert refusal(pool, "create_vtpm") == ["VTPM_MAX_AMOUNT_REACHED", "1"]


@pytest.mark.parametrize("op", ["suspend", "pool_migrate", "migrate_send", "checkpoint"])
def test_an_immobile_vm_moves_only_when_forced(op: str) -> None:
    pool = Sample()
    pool.vm(state="Running", kind="pv")
    pool.set("VM_metrics", "vm-metrics", nomigrate=True)
    assert refusal(pool, op) == ["VM_IS_IMMOBILE", "vm"]
    assert refusal(pool, op, strict=False) is None


def test_without_metrics_the_platform_says_that_a_vm_is_immobile() -> None:
    pool = Sample()
    pool.vm(metrics="OpaqueRef:NULL", platform={"nested-virt": "true"})
    assert refusal(pool, "migrate_send") == ["VM_IS_IMMOBILE", "vm"]
    assert refusal(pool, "changing_dynamic_range") == ["VM_IS_USING_NESTED_VIRT", "vm"]


@pytest.mark.parametrize(
    ("op", "features"),
    [
        ("suspend", {"feature-suspend"}),
        ("pool_migrate", {"feature-suspend"}),
        ("clean_shutdown", {"feature-shutdown"}),
        ("clean_shutdown", {"feature-poweroff"}),
        ("clean_reboot", {"feature-shutdown"}),
        ("clean_reboot", {"feature-reboot"}),
        ("changing_VCPUs_live", {"feature-vcpu-hotplug"}),
    ],
)
def test_a_guest_without_drivers_must_announce_the_feature(op: str, features: set[str]) -> None:
    pool = Sample()
    pool.vm(state="Running")
    assert refusal(pool, op) == ["VM_LACKS_FEATURE", "vm"]
    assert refusal(pool, op, strict=False) is None
    pool.guest("vm", dict.fromkeys(features, "1"))
    assert refusal(pool, op) is None


def test_known_drivers_stand_for_all_features() -> None:
    pool = Sample()
    pool.vm(state="Running")
    pool.guest("vm", drivers=True)
    assert vm_operations.allowed_operations(pool.rows, "vm") == sorted(RUNNING.split())


def test_a_guest_that_cannot_be_suspended_says_why_even_when_forced() -> None:
    pool = Sample()
    pool.vm(state="Running")
    pool.guest("vm", {"data-cant-suspend-reason": "busy disk"}, drivers=True)
    assert refusal(pool, "suspend", strict=False) == ["VM_NON_SUSPENDABLE", "vm", "busy disk"]
    assert refusal(pool, "clean_shutdown") is None


def test_a_disk_that_is_reset_on_boot_stays_where_it_is() -> None:
    pool = Sample()
    pool.vm(state="Running", kind="pv")
    pool.sr()
    pool.vdi(sm_config={"on_boot": "reset"})
    pool.vbd()
    for op in ("snapshot", "checkpoint", "suspend"):
        assert refusal(pool, op) == ["VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"]
    assert refusal(pool, "pool_migrate") is None
    pool.set("VDI", "vdi", sm_config={"on_boot": "reset", "caching": "true"})
    assert refusal(pool, "pool_migrate") == ["VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"]


def test_the_field_on_boot_of_a_disk_does_not_count() -> None:
    pool = Sample()
    pool.vm(state="Running", kind="pv")
    pool.sr()
    pool.vdi(on_boot="reset")
    pool.vbd()
    assert refusal(pool, "snapshot") is None


def test_a_virtual_gpu_does_not_move_unless_its_vendor_can_move_it() -> None:
    pool = Sample()
    pool.vm(state="Running", kind="pv")
    pool.add("VGPU_type", "type", implementation="nvidia")
    pool.add("VGPU", "vgpu", VM="vm", type="type")
    assert refusal(pool, "suspend") == ["VM_HAS_VGPU", "vm"]
    pool.set("VGPU", "vgpu", compatibility_metadata={"a": "b"})
    assert refusal(pool, "suspend") is None


def test_usb_devices_keep_a_vm_from_being_saved() -> None:
    pool = Sample()
    pool.vm(state="Running", kind="pv")
    pool.add("VUSB", "vusb", VM="vm")
    assert refusal(pool, "snapshot") == ["VM_HAS_VUSBS", "vm"]
    assert refusal(pool, "suspend") == ["VM_HAS_VUSBS", "vm"]


def test_a_control_domain_is_no_ordinary_vm() -> None:
    pool = Sample()
    pool.vm(state="Running", kind="pv", is_control_domain=True, domid=0)
    for op in ("pause", "hard_shutdown", "snapshot", "suspend", "pool_migrate", "changing_VCPUs"):
        error = refusal(pool, op)
        assert error is not None
        assert error[0] == "OPERATION_NOT_ALLOWED"
    assert refusal(pool, "start") == ["VM_BAD_POWER_STATE", "vm", "halted", "running"]
    assert refusal(pool, "data_source_op") is None


def test_a_suspended_vm_is_cloned_only_where_the_pool_allows_it() -> None:
    pool = Sample()
    pool.pool()
    pool.vm(state="Suspended")
    assert refusal(pool, "clone") == ["VM_BAD_POWER_STATE", "vm", "halted", "suspended"]
    pool.set("pool", "pool", other_config={"allow_clone_suspended_vm": "true"})
    assert refusal(pool, "clone") is None


def test_a_snapshot_with_quiesce_is_never_possible() -> None:
    pool = Sample()
    pool.vm(state="Running", kind="pv")
    assert refusal(pool, "snapshot_with_quiesce") == ["VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", "vm"]


@given(
    state=st.sampled_from(ANY_STATE),
    kind=st.sampled_from(["hvm", "pv", "pvh"]),
    flags=st.fixed_dictionaries(
        {name: st.booleans() for name in ("is_a_template", "is_a_snapshot", "is_default_template", "is_control_domain")}
    ),
    current=st.lists(st.sampled_from(OPERATIONS), max_size=3),
    blocked=st.sets(st.sampled_from(OPERATIONS), max_size=3),
    agent=st.none() | st.sets(st.sampled_from(["feature-suspend", "feature-shutdown", "data-cant-suspend-reason"])),
)
def test_an_operation_is_listed_exactly_when_its_check_passes(
    state: str,
    kind: str,
    flags: dict[str, Any],
    current: list[str],
    blocked: set[str],
    agent: set[str] | None,
) -> None:
    pool = Sample()
    running = {f"task{i}": op for i, op in enumerate(current)}
    pool.vm(state=state, kind=kind, current_operations=running, blocked_operations=dict.fromkeys(blocked, "x"), **flags)
    if agent is not None:
        pool.guest("vm", dict.fromkeys(agent, "1"))
    allowed = vm_operations.allowed_operations(pool.rows, "vm")
    assert allowed == [op for op in sorted(LISTED) if vm_operations.check(pool.rows, "vm", op) is None]
    assert not NEVER_LISTED.intersection(allowed)
    assert not blocked.intersection(allowed)
