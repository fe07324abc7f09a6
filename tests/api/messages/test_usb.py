"""USB devices of hosts, their groups, and the VUSBs of VMs: rows, and what they refuse."""

from __future__ import annotations

import pytest

from shared.contracts.db import Create, Update
from tests.api.harness import Client, Pool

PUSB = "OpaqueRef:pusb"
NOWHERE = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"


@pytest.fixture
async def group(pool: Pool, client: Client) -> str:
    """Of the one device there is, on the first host."""
    made = str(await client.call("USB_group.create", "usb", "", {}))
    fields = {"USB_group": made, "host": pool.host_ref(0), "path": "1-1", "vendor_id": "03f0", "product_id": "1d4d"}
    await pool.write(Create(cls="PUSB", ref=PUSB, fields=fields))
    return made


async def test_a_group_with_a_device_stays(pool: Pool, client: Client, group: str) -> None:
    assert await client.refusal("USB_group.destroy", group) == ["USB_GROUP_CONTAINS_PUSB", PUSB]
    other = await client.call("USB_group.create", "other", "", {})
    vusb = await client.call("VUSB.create", await pool.vm(client), other, {})
    await client.call("USB_group.destroy", other)
    assert pool.row("VUSB", vusb) is None


async def test_a_device_is_for_one_vm(pool: Pool, client: Client, group: str) -> None:
    vm = await pool.vm(client)
    vusb = await client.call("VUSB.create", vm, group, {})
    assert pool.row("VUSB", vusb)["allowed_operations"] == ["attach"]
    assert "snapshot" not in pool.row("VM", vm)["allowed_operations"]
    other = await pool.vm(client, "other")
    assert await client.refusal("VUSB.create", other, group, {}) == ["USB_GROUP_CONFLICT", group]
    assert await client.refusal("VM.snapshot", vm, "s") == ["VM_HAS_VUSBS", vm]
    await client.call("VUSB.destroy", vusb)
    assert "snapshot" in pool.row("VM", vm)["allowed_operations"]


async def test_a_vm_has_six_at_most(pool: Pool, client: Client, group: str) -> None:
    vm = await pool.vm(client)
    for number in range(6):
        another = await client.call("USB_group.create", f"{number}", "", {})
        await client.call("VUSB.create", vm, another, {})
    assert await client.refusal("VUSB.create", vm, group, {}) == ["TOO_MANY_VUSBS", "6"]


async def test_a_vm_that_ha_restarts_has_none(pool: Pool, client: Client, group: str) -> None:
    vm = await pool.vm(client, ha_restart_priority="restart")
    assert (await client.refusal("VUSB.create", vm, group, {}))[0] == "OPERATION_NOT_ALLOWED"
    assert await client.refusal("VUSB.create", NOWHERE, group, {}) == ["HANDLE_INVALID", "VM", NOWHERE]


async def test_unplugging_depends_on_the_vm(pool: Pool, client: Client, group: str) -> None:
    vm = await pool.vm(client)
    vusb = await client.call("VUSB.create", vm, group, {})
    assert await client.refusal("VUSB.unplug", vusb) == ["VM_BAD_POWER_STATE", vm, "running", "halted"]
    await pool.write(Update(cls="VM", ref=vm, fields={"power_state": "Running"}))
    assert await client.refusal("VUSB.unplug", vusb) == ["DEVICE_ALREADY_DETACHED", vusb]
    await pool.until(lambda: pool.row("VUSB", vusb)["allowed_operations"] == ["attach", "plug"])
    await pool.write(Update(cls="VUSB", ref=vusb, fields={"currently_attached": True}))
    assert await client.refusal("VUSB.unplug", vusb) == ["NOT_IMPLEMENTED", "VUSB.unplug"]
    assert (await client.refusal("VUSB.destroy", vusb))[0] == "OPERATION_NOT_ALLOWED"


async def test_a_device_is_given_to_vms_or_kept_for_the_host(pool: Pool, client: Client, group: str) -> None:
    await client.call("PUSB.set_passthrough_enabled", PUSB, True)
    assert pool.row("PUSB", PUSB)["passthrough_enabled"]
    vm = await pool.vm(client)
    vusb = await client.call("VUSB.create", vm, group, {})
    await pool.write(Update(cls="VUSB", ref=vusb, fields={"currently_attached": True}))
    assert await client.refusal("PUSB.set_passthrough_enabled", PUSB, False) == ["USB_ALREADY_ATTACHED", PUSB, vm]
    await pool.write(Update(cls="VUSB", ref=vusb, fields={"currently_attached": False}))
    await client.call("PUSB.set_passthrough_enabled", PUSB, False)
    assert pool.row("VUSB", vusb) is None


async def test_a_device_that_is_a_disk_of_a_vm_is_not_given_away(pool: Pool, client: Client, group: str) -> None:
    vm = await pool.vm(client)
    disk, drive = "OpaqueRef:disk", "OpaqueRef:drive"
    await pool.write(
        Create(cls="SR", ref="OpaqueRef:udev", fields={"type": "udev", "name_label": "usb"}),
        Create(cls="VDI", ref=disk, fields={"SR": "OpaqueRef:udev", "sm_config": {"usb_path": "1-1"}}),
        Create(cls="VBD", ref=drive, fields={"VM": vm, "VDI": disk, "userdevice": "5", "mode": "RW", "type": "Disk"}),
    )
    assert await client.refusal("PUSB.set_passthrough_enabled", PUSB, True) == ["PUSB_VDI_CONFLICT", PUSB, disk]
    await client.call("VBD.destroy", drive)
    await client.call("PUSB.set_passthrough_enabled", PUSB, True)
    assert pool.row("VDI", disk) is None
