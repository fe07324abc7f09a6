"""VM.create, VM.clone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from services.api.decisions import (
    memory,
    vif_records,
    vm_operations,
    vm_records,
)
from shared.datamodel import model
from shared.errors import ApiError
from tests.api.decisions.sample import MIB, Sample

NULL = "OpaqueRef:NULL"
SEED = "11111111-2222-4333-8444-555555555555"


def fresh() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"00000000-0000-4000-8000-{next(numbers):012d}"


def refusal(make: Callable[[], Any]) -> list[str]:
    with pytest.raises(ApiError) as caught:
        make()
    return caught.value.description


def created(**args: Any) -> Sample:
    pool = Sample()
    usual = {"name_label": "vm", "memory_static_max": 256 * MIB, "VCPUs_max": 1, "HVM_boot_policy": "BIOS order"}
    pool.make(vm_records.created("vm", {**usual, **args}, fresh()))
    return pool


def test_a_new_vm_is_halted_and_nowhere() -> None:
    pool = created(power_state="Running", domid=5, resident_on="host")
    vm = pool.row("VM", "vm")
    assert (vm["power_state"], vm["domid"], vm["resident_on"], vm["guest_metrics"]) == ("Halted", -1, NULL, NULL)
    assert vm["memory_overhead"] == memory.overhead(vm) > 0
    assert vm["generation_id"] == "0:0"
    metrics = pool.row("VM_metrics", vm["metrics"])
    assert (metrics["start_time"], metrics["current_domain_type"]) == ("19700101T00:00:00Z", "unspecified")
    assert "start" in vm_operations.allowed_operations(pool.rows, "vm")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"HVM_boot_policy": "BIOS order"}, "hvm"),
        ({"HVM_boot_policy": ""}, "pv"),
        ({"domain_type": "unspecified", "HVM_boot_policy": ""}, "pv"),
        ({"domain_type": "pvh", "HVM_boot_policy": ""}, "pvh"),
    ],
)
def test_the_domain_type_follows_the_boot_policy_unless_it_is_given(args: dict[str, Any], expected: str) -> None:
    assert created(**args).row("VM", "vm")["domain_type"] == expected


def test_a_mac_seed_is_made_unless_one_is_given() -> None:
    assert created().row("VM", "vm")["other_config"]["mac_seed"]
    config = {"mac_seed": SEED, "a": "b"}
    assert created(other_config=config).row("VM", "vm")["other_config"] == config


def test_the_vendor_device_needs_a_newer_platform() -> None:
    assert created().row("VM", "vm")["hardware_platform_version"] == 2
    assert created(hardware_platform_version=9).row("VM", "vm")["hardware_platform_version"] == 9
    assert created(has_vendor_device=False).row("VM", "vm")["hardware_platform_version"] == 0


def test_what_only_the_server_sets_is_ignored() -> None:
    vm = created(is_a_snapshot=True, is_control_domain=True, blocked_operations={"start": "x"}).row("VM", "vm")
    assert (vm["is_a_snapshot"], vm["is_control_domain"], vm["blocked_operations"]) == (False, False, {})


def test_a_suspended_vm_must_come_with_what_it_takes_to_resume() -> None:
    expected = ["VM_BAD_POWER_STATE", "vm", "halted", "suspended"]
    assert refusal(lambda: created(power_state="Suspended", suspend_VDI="vdi")) == expected
    pool = created(
        power_state="Suspended", suspend_VDI="vdi", last_boot_CPU_flags={"vendor": "x"}, last_booted_record="{}"
    )
    vm = pool.row("VM", "vm")
    assert vm["power_state"] == "Suspended"
    assert pool.row("VM_metrics", vm["metrics"])["current_domain_type"] == "hvm"


def source(**fields: Any) -> Sample:
    pool = Sample()
    config = {"default_template": "true", "xensource_internal": "x", "mac_seed": SEED, "a": "b"}
    pool.vm("source", **{"other_config": config, "tags": ["t"], "generation_id": "1:2", **fields})
    pool.sr()
    pool.vdi("disk")
    pool.vdi("iso")
    pool.vbd("vbd", vm="source", vdi="disk", bootable=True, currently_attached=True, device="xvda")
    pool.cd("cd", vm="source", vdi="iso")
    pool.add("network", "network")
    pool.vif("vif", vm="source", MAC="02:00:00:00:00:01", MTU=9000, currently_attached=True)
    return pool


def clone(pool: Sample, **more: Any) -> Sample:
    pool.make(vm_records.cloned(pool.rows, "source", "clone", "copied", {"vbd": "copy"}, fresh(), **more))
    return pool


def test_a_clone_has_the_configuration_but_not_the_history() -> None:
    pool = source(
        is_a_template=True,
        is_default_template=True,
        blocked_operations={"start": "x"},
        appliance="app",
        start_delay=5,
        order=3,
        version=7,
        parent="old",
        affinity="host",
        ha_always_run=True,
        ha_restart_priority="restart",
        platform={"acpi": "1"},
    )
    vm, original = clone(pool).row("VM", "clone"), pool.row("VM", "source")
    for field in vm_records.COPIED:
        assert vm[field] == original[field], field
    assert vm["name_label"] == "copied"
    assert vm["is_a_template"]
    assert not vm["is_default_template"]
    for field in ("blocked_operations", "appliance", "start_delay", "order", "version", "ha_always_run"):
        assert vm[field] == model.classes["VM"].fields[field].initial(), field
    assert vm["parent"] == NULL
    assert vm["uuid"] not in ("", original["uuid"])


def test_a_clone_of_a_template_remembers_it_and_gets_its_own_seed() -> None:
    pool = clone(source(is_a_template=True))
    config = pool.row("VM", "clone")["other_config"]
    assert config["mac_seed"] not in ("", SEED)
    assert {**config, "mac_seed": ""} == {"a": "b", "base_template_name": "source", "mac_seed": ""}


def test_a_clone_of_a_plain_vm_names_no_template() -> None:
    assert "base_template_name" not in clone(source()).row("VM", "clone")["other_config"]


def test_a_clone_of_a_clone_keeps_the_first_templates_name() -> None:
    pool = source(is_a_template=True, other_config={"base_template_name": "Debian"})
    assert clone(pool).row("VM", "clone")["other_config"]["base_template_name"] == "Debian"


def test_disks_are_the_copies_and_discs_are_shared() -> None:
    pool = clone(source())
    vbds = {pool.row("VBD", ref)["type"]: pool.row("VBD", ref) for ref in pool.row("VM", "clone")["VBDs"]}
    assert vbds["Disk"]["VDI"] == "copy"
    assert vbds["Disk"]["other_config"] == {"owner": ""}
    assert (vbds["Disk"]["bootable"], vbds["Disk"]["currently_attached"], vbds["Disk"]["device"]) == (True, False, "")
    assert vbds["CD"]["VDI"] == "iso"
    assert vbds["CD"]["other_config"] == {}


def test_interfaces_get_new_addresses_from_the_new_seed() -> None:
    pool = clone(source())
    seed = pool.row("VM", "clone")["other_config"]["mac_seed"]
    (ref,) = pool.row("VM", "clone")["VIFs"]
    vif = pool.row("VIF", ref)
    assert vif["MAC"] == vif_records.mac_from_seed(seed, 0) != "02:00:00:00:00:01"
    assert vif["MAC_autogenerated"]
    assert (vif["network"], vif["MTU"], vif["currently_attached"]) == ("network", 9000, False)


def test_a_clone_has_metrics_of_its_own_even_if_the_template_has_none() -> None:
    pool = clone(source(metrics=NULL))
    metrics = pool.row("VM", "clone")["metrics"]
    assert pool.row("VM_metrics", metrics)["current_domain_type"] == "unspecified"
    assert pool.row("VM", "clone")["guest_metrics"] == NULL


def test_guest_metrics_are_duplicated() -> None:
    pool = source()
    pool.guest("source", {"feature-suspend": "1"})
    guest = clone(pool).row("VM", "clone")["guest_metrics"]
    assert guest not in (NULL, pool.row("VM", "source")["guest_metrics"])
    assert pool.row("VM_guest_metrics", guest)["other"] == {"feature-suspend": "1"}


def test_a_suspended_clone_keeps_its_devices_attached() -> None:
    pool = clone(source(power_state="Suspended"), suspend_vdi="image")
    vm = pool.row("VM", "clone")
    assert (vm["power_state"], vm["suspend_VDI"]) == ("Suspended", "image")
    assert pool.row("VBD", vm["VBDs"][0])["currently_attached"] or pool.row("VBD", vm["VBDs"][1])["currently_attached"]


@pytest.mark.parametrize(("before", "kept"), [("", True), ("1:2", False), ("0:0", False)])
def test_a_clone_gets_a_new_generation_unless_there_is_none(before: str, kept: bool) -> None:
    after = clone(source(generation_id=before)).row("VM", "clone")["generation_id"]
    assert (after == before) is kept
    if not kept:
        assert all(-(2**63) <= int(part) < 2**63 for part in after.split(":"))


def test_every_field_a_clone_takes_over_exists_and_is_stored() -> None:
    stored = {name for name, field in model.classes["VM"].fields.items() if field.maintained_from is None}
    assert set(vm_records.COPIED) <= stored


def test_before_it_starts_a_vm_gets_what_is_still_missing() -> None:
    pool = Sample()
    pool.vm(domain_type="unspecified", HVM_boot_policy="BIOS order")
    fields = vm_records.prepared_for_start(pool.row("VM", "vm"))
    assert fields["domain_type"] == "hvm"
    assert fields["bios_strings"]["system-product-name"] == "HVM domU"
    pool.set("VM", "vm", bios_strings={"bios-vendor": "Mine"})
    assert vm_records.prepared_for_start(pool.row("VM", "vm"))["bios_strings"] == {"bios-vendor": "Mine"}
