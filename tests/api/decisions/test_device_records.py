"""VBDs and VIFs: names, numbers, addresses, and what is created."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.decisions import (
    vbd_devices,
    vbd_records,
    vif_records,
)
from services.api.decisions.vbd_devices import Position
from shared.contracts.db import Create
from shared.errors import ApiError
from tests.api.decisions.sample import Sample

NULL = "OpaqueRef:NULL"
SEED = "11111111-2222-4333-8444-555555555555"


def refusal(make: Callable[[], Any]) -> list[str]:
    with pytest.raises(ApiError) as caught:
        make()
    return caught.value.description


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0", Position("disk", 0)),
        ("254", Position("disk", 254)),
        ("999", Position("disk", 999)),
        ("-1", Position("disk", -1)),
        ("xvda", Position("disk", 0)),
        ("xvdz", Position("disk", 25)),
        ("xvdaa", Position("disk", 26)),
        ("sdb", Position("disk", 1)),
        ("hdd", Position("disk", 3)),
        ("xvda2", Position("disk", 0, 2)),
        ("d5p1", Position("disk", 5, 1)),
        ("d5", Position("disk", 5)),
        ("fda", Position("floppy", 0)),
    ],
)
def test_a_userdevice_may_be_a_number_or_a_name(name: str, expected: Position) -> None:
    assert vbd_devices.position(name) == expected


@pytest.mark.parametrize("name", ["", "x", "xvd", "xvd1", "fdc", "0x1", "1.5", "XVDA", "xvda ", "autodetect"])
def test_what_is_no_device_is_refused(name: str) -> None:
    assert refusal(lambda: vbd_devices.position(name)) == ["INVALID_DEVICE", name]


def test_floppy_drives_are_for_hvm() -> None:
    assert refusal(lambda: vbd_devices.position("fda", hvm=False)) == ["INVALID_DEVICE", "fda"]


@given(st.integers(0, 100_000))
def test_a_device_name_means_the_number_it_was_made_from(number: int) -> None:
    assert vbd_devices.position(vbd_devices.linux_device(Position("disk", number))) == Position("disk", number)


def drives(*userdevices: str) -> Sample:
    pool = Sample()
    pool.vm()
    pool.sr()
    pool.vdi()
    for number, name in enumerate(userdevices):
        pool.vbd(f"vbd{number}", userdevice=name)
    return pool


@pytest.mark.parametrize(
    ("taken", "asked", "expected"),
    [
        ((), "autodetect", "0"),
        (("0", "xvdb", "sdd"), "autodetect", "2"),
        (("frob",), "autodetect", "0"),
        (("fda",), "autodetect", "0"),
        (("0",), "xvdb", "xvdb"),
    ],
)
def test_a_new_drive_gets_the_lowest_free_number(taken: tuple[str, ...], asked: str, expected: str) -> None:
    assert vbd_devices.assign(drives(*taken).rows, "vm", asked) == expected


@pytest.mark.parametrize(("taken", "asked"), [("0", "0"), ("0", "xvda"), ("sdb", "hdb"), ("xvdc", "2"), ("fda", "fda")])
def test_two_names_of_one_device_clash(taken: str, asked: str) -> None:
    assert refusal(lambda: vbd_devices.assign(drives(taken).rows, "vm", asked)) == ["DEVICE_ALREADY_EXISTS", asked]


def test_free_device_numbers_are_offered() -> None:
    free = vbd_devices.allowed(drives("0", "xvdc").rows, "vm")
    assert free[:3] == ["1", "3", "4"]
    assert free[-1] == "254"


def vbd_args(**args: Any) -> dict[str, Any]:
    usual = {"VM": "vm", "VDI": "vdi", "userdevice": "0", "mode": "RW", "type": "Disk", "empty": False}
    return {**usual, **args}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"VM": "gone"}, ["HANDLE_INVALID", "VM", "gone"]),
        ({"VDI": NULL}, ["HANDLE_INVALID", "VDI", NULL]),
        ({"empty": True}, ["VBD_NOT_REMOVABLE_MEDIA", "in constructor"]),
        ({"type": "Floppy", "empty": True, "VDI": NULL}, ["VBD_NOT_REMOVABLE_MEDIA", "in constructor"]),
        ({"type": "CD"}, ["VBD_CDS_MUST_BE_READONLY"]),
        ({"VDI": "fixed"}, ["VDI_READONLY", "fixed"]),
        ({"VDI": "changes"}, ["VDI_INCOMPATIBLE_TYPE", "changes", "CBT metadata"]),
        ({"userdevice": "frob"}, ["INVALID_DEVICE", "frob"]),
        ({"userdevice": ""}, ["INVALID_DEVICE", ""]),
    ],
)
def test_a_drive_that_cannot_be_is_not_created(args: dict[str, Any], expected: list[str]) -> None:
    pool = drives()
    pool.vdi("fixed", read_only=True)
    pool.vdi("changes", type="cbt_metadata")
    assert refusal(lambda: vbd_records.created(pool.rows, "new", "uuid", vbd_args(**args))) == expected


def test_a_new_drive_is_not_attached_whatever_the_caller_says() -> None:
    pool = drives()
    pool.make([vbd_records.created(pool.rows, "new", "uuid", vbd_args(currently_attached=True, device="xvda"))])
    vbd = pool.row("VBD", "new")
    assert (vbd["currently_attached"], vbd["device"], vbd["VM"], vbd["VDI"]) == (False, "", "vm", "vdi")


def test_an_empty_cd_drive_has_no_disk() -> None:
    pool = drives()
    pool.make([vbd_records.created(pool.rows, "new", "uuid", vbd_args(type="CD", mode="RO", empty=True))])
    assert pool.row("VBD", "new")["VDI"] == NULL


def test_nothing_is_added_to_a_vm_on_its_way() -> None:
    pool = drives()
    pool.set("VM", "vm", current_operations={"t": "pool_migrate"})
    expected = ["OTHER_OPERATION_IN_PROGRESS", "VM", "vm", "pool_migrate", "t"]
    assert refusal(lambda: vbd_records.created(pool.rows, "new", "uuid", vbd_args())) == expected


def test_an_address_comes_from_seed_and_device_number() -> None:
    once = hashlib.md5(SEED.encode()).digest()
    twice = hashlib.md5(once).digest()
    first = bytes([(once[0] | 2) & 0xFE, *once[1:4], *twice[1:3]]).hex(":")
    assert vif_records.mac_from_seed(SEED, 0) == first
    assert vif_records.mac_from_seed(SEED, 1) != first


@given(st.text(min_size=1), st.integers(0, 15))
def test_made_addresses_are_local_and_unicast(seed: str, device: int) -> None:
    first = int(vif_records.mac_from_seed(seed, device).split(":")[0], 16)
    assert first & 0b11 == 0b10


def vif(**args: Any) -> Create:
    pool = Sample()
    pool.vm(other_config={"mac_seed": SEED})
    pool.vm("dom0", is_control_domain=True)
    pool.add("network", "network")
    pool.vif("taken", device="3")
    usual = {"VM": "vm", "network": "network", "device": "0", "MAC": "", "MTU": 1500, "other_config": {}}
    return vif_records.created(pool.rows, "new", "uuid", {**usual, **args})


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"device": "x"}, ["INVALID_DEVICE", "x"]),
        ({"device": ""}, ["INVALID_DEVICE", ""]),
        ({"device": "-1"}, ["INVALID_DEVICE", "-1"]),
        ({"device": "3"}, ["DEVICE_ALREADY_EXISTS", "3"]),
        ({"MAC": "xx"}, ["MAC_INVALID", "xx"]),
        ({"VM": "dom0"}, ["MAC_INVALID", ""]),
        ({"network": NULL}, ["HANDLE_INVALID", "network", NULL]),
    ],
)
def test_an_interface_that_cannot_be_is_not_created(args: dict[str, Any], expected: list[str]) -> None:
    assert refusal(lambda: vif(**args)) == expected


def test_an_address_that_is_given_is_kept_and_one_that_is_not_is_made() -> None:
    given_mac = vif(MAC="FF:FF:FF:FF:FF:FF").fields
    assert (given_mac["MAC"], given_mac["MAC_autogenerated"]) == ("FF:FF:FF:FF:FF:FF", False)
    made = vif(currently_attached=True).fields
    assert (made["MAC"], made["MAC_autogenerated"]) == (vif_records.mac_from_seed(SEED, 0), True)
    assert "currently_attached" not in made


def test_interface_numbers_that_are_free_are_offered() -> None:
    pool = Sample()
    pool.vm()
    pool.add("network", "network")
    pool.vif(device="1")
    assert vif_records.allowed(pool.rows, "vm") == ["0", *map(str, range(2, 16))]
