"""Disks of VMs: plugged into running ones and taken out, media of drives, disks of control domains."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.operations.vbd_loopback import device_of
from shared.contracts import storage
from shared.contracts.db import Create, Update
from shared.contracts.vm import Cause
from shared.errors import ApiError
from tests.api.core import records
from tests.api.harness import Client, Pool

NULL = "OpaqueRef:NULL"


async def a_disk(pool: Pool, client: Client, **fields: Any) -> str:
    return str(await client.call("VDI.create", records.vdi(pool.ref("SR", "storage"), **fields)))


async def running(pool: Pool, client: Client, name: str = "vm", domain_type: str = "pv") -> str:
    vm = await pool.vm(client, name, domain_type=domain_type)
    await client.call("VM.start", vm, False, False)
    return vm


async def has_drivers(pool: Pool, vm: str) -> None:
    found = {"uuid": "gm", "other": {}, "PV_drivers_detected": True, "can_use_hotplug_vbd": "yes"}
    guest = Create(cls="VM_guest_metrics", ref="OpaqueRef:gm", fields=found)
    await pool.write(guest, Update(cls="VM", ref=vm, fields={"guest_metrics": "OpaqueRef:gm"}))
    await pool.settled()


def is_open(pool: Pool, vdi: str) -> bool:
    return pool.row("VDI", vdi)["location"] in pool.disks.open


async def test_a_running_vm_gets_a_disk_and_gives_it_back(pool: Pool, client: Client) -> None:
    vm, vdi = await running(pool, client), await a_disk(pool, client)
    vbd = await client.call("VBD.create", records.vbd(vm, vdi, userdevice="2"))
    assert not pool.row("VBD", vbd)["currently_attached"]
    await client.call("VBD.plug", vbd)
    row = pool.row("VBD", vbd)
    assert (row["currently_attached"], row["device"], row["current_operations"]) == (True, "xvdc", {})
    assert is_open(pool, vdi)
    await pool.settled()
    assert "unplug" in pool.row("VBD", vbd)["allowed_operations"]
    assert "destroy" not in pool.row("VDI", vdi)["allowed_operations"]
    assert await client.refusal("VBD.plug", vbd) == ["DEVICE_ALREADY_ATTACHED", vbd]
    assert (await client.refusal("VBD.destroy", vbd))[0] == "OPERATION_NOT_ALLOWED"
    await client.call("VBD.unplug", vbd)
    assert not pool.row("VBD", vbd)["currently_attached"]
    assert not is_open(pool, vdi)
    assert await client.refusal("VBD.unplug", vbd) == ["DEVICE_ALREADY_DETACHED", vbd]
    assert await client.refusal("VBD.unplug_force", vbd) == ["DEVICE_ALREADY_DETACHED", vbd]


async def test_a_plug_that_fails_leaves_the_rows_as_they_were(pool: Pool, client: Client) -> None:
    vm, vdi = await running(pool, client), await a_disk(pool, client)
    vbd = await client.call("VBD.create", records.vbd(vm, vdi))
    pool.host_of(vm).fail("vm.vbd_plug", ApiError("SR_BACKEND_FAILURE_46", "", "broken", ""))
    assert await client.refusal("VBD.plug", vbd) == ["SR_BACKEND_FAILURE_46", "", "broken", ""]
    row = pool.row("VBD", vbd)
    assert (row["currently_attached"], row["current_operations"]) == (False, {})
    await client.call("VBD.plug", vbd)


async def test_a_guest_that_keeps_its_disk_keeps_the_row(pool: Pool, client: Client) -> None:
    vm, vdi = await running(pool, client), await a_disk(pool, client)
    vbd = await client.call("VBD.create", records.vbd(vm, vdi))
    await client.call("VBD.plug", vbd)
    refused = ["DEVICE_DETACH_REJECTED", "VBD", vbd, "no"]
    pool.host_of(vm).fail("vm.vbd_unplug", ApiError(*refused))
    assert await client.refusal("VBD.unplug", vbd) == refused
    assert pool.row("VBD", vbd)["currently_attached"]
    for force in ("VBD.unplug_force", "VBD.unplug_force_no_safety_check"):
        await client.call(force, vbd)
        await client.call("VBD.plug", vbd)


async def test_of_two_vms_that_want_to_write_to_a_disk_one_gets_it(pool: Pool, client: Client) -> None:
    first, second = await running(pool, client), await running(pool, client, "second")
    vdi = await a_disk(pool, client)
    vbds = [await client.call("VBD.create", records.vbd(vm, vdi)) for vm in (first, second)]
    gate = pool.host_of(first).hold("vm.vbd_plug")
    plugging = client.begin("VBD.plug", vbds[0])
    await gate.reached.wait()
    assert await client.refusal("VBD.plug", vbds[1]) == ["VDI_IN_USE", vdi]
    gate.open()
    await plugging
    assert await client.refusal("VBD.plug", vbds[1]) == ["VDI_IN_USE", vdi]
    assert [pool.row("VBD", vbd)["currently_attached"] for vbd in vbds] == [True, False]


async def test_an_hvm_guest_needs_drivers_and_writable_disks(pool: Pool, client: Client) -> None:
    vm, vdi = await running(pool, client, domain_type="hvm"), await a_disk(pool, client)
    vbd = await client.call("VBD.create", records.vbd(vm, vdi))
    read_only = await client.call("VBD.create", records.vbd(vm, await a_disk(pool, client), mode="RO"))
    assert await client.refusal("VBD.plug", vbd) == ["VM_MISSING_PV_DRIVERS", vm]
    await has_drivers(pool, vm)
    assert await client.refusal("VBD.plug", read_only) == ["DISK_VBD_MUST_BE_READWRITE_FOR_HVM", read_only]
    await client.call("VBD.plug", vbd)


async def test_an_hvm_guest_on_a_machine_with_slots_for_disks_needs_no_drivers(pool: Pool, client: Client) -> None:
    vm, vdi = await running(pool, client, domain_type="hvm"), await a_disk(pool, client)
    vbd = await client.call("VBD.create", records.vbd(vm, vdi))
    await pool.settled()
    assert "plug" not in pool.row("VBD", vbd)["allowed_operations"]
    host = pool.host_of(vm)
    host.forget_history(pool.row("VM", vm)["uuid"], accel="kvm")
    await host.say(host.vms[pool.row("VM", vm)["uuid"]], Cause.REQUEST)
    metrics = pool.row("VM", vm)["guest_metrics"]
    await pool.until(lambda: pool.row("VM_guest_metrics", metrics)["can_use_hotplug_vbd"] == "yes")
    await pool.until(lambda: "plug" in pool.row("VBD", vbd)["allowed_operations"])
    await client.call("VBD.plug", vbd)
    await client.call("VBD.unplug", vbd)


async def test_a_rebooted_vm_has_the_disks_it_had(pool: Pool, client: Client) -> None:
    vm = await running(pool, client)
    plugged, not_plugged = [
        await client.call("VBD.create", records.vbd(vm, await a_disk(pool, client))) for _ in range(2)
    ]
    await client.call("VBD.plug", plugged)
    await client.call("VM.hard_reboot", vm)
    assert pool.row("VBD", plugged)["currently_attached"]
    assert not pool.row("VBD", not_plugged)["currently_attached"]


async def empty_drive(client: Client, vm: str) -> str:
    drive = records.vbd(vm, NULL, type="CD", mode="RO", empty=True, userdevice="3")
    return str(await client.call("VBD.create", drive))


def medium(pool: Pool, vbd: str) -> tuple[str, bool]:
    row = pool.row("VBD", vbd)
    return row["VDI"], row["empty"]


async def test_media_of_a_halted_vm_are_rows(pool: Pool, client: Client) -> None:
    vm, vdi = await pool.vm(client), await a_disk(pool, client)
    vbd = await empty_drive(client, vm)
    await client.call("VBD.insert", vbd, vdi)
    assert medium(pool, vbd) == (vdi, False)
    assert await client.refusal("VBD.insert", vbd, vdi) == ["VBD_NOT_EMPTY", vbd]
    await client.call("VBD.eject", vbd)
    assert medium(pool, vbd) == (NULL, True)
    assert await client.refusal("VBD.eject", vbd) == ["VBD_IS_EMPTY", vbd]
    assert await client.refusal("VBD.insert", vbd, "OpaqueRef:x") == ["HANDLE_INVALID", "VDI", "OpaqueRef:x"]
    disk = await client.call("VBD.create", records.vbd(vm, vdi))
    assert await client.refusal("VBD.eject", disk) == ["VBD_NOT_REMOVABLE_MEDIA", disk]
    await pool.write(Update(cls="VDI", ref=vdi, fields={"managed": False}))
    assert await client.refusal("VBD.insert", vbd, vdi) == ["VDI_NOT_MANAGED", vdi]


@pytest.mark.parametrize("domain_type", ["hvm", "pv"])
async def test_media_of_a_running_vm_come_and_go(pool: Pool, client: Client, domain_type: str) -> None:
    vm, vdi = await pool.vm(client, domain_type=domain_type), await a_disk(pool, client)
    vbd = await empty_drive(client, vm)
    await client.call("VM.start", vm, False, False)
    host = pool.host_of(vm)
    for _ in range(2):
        await client.call("VBD.insert", vbd, vdi)
        assert medium(pool, vbd) == (vdi, False)
        assert is_open(pool, vdi)
        await client.call("VBD.eject", vbd)
        assert medium(pool, vbd) == (NULL, True)
        assert not is_open(pool, vdi)
    assert ("vm.vbd_insert" in host.served) == (domain_type == "hvm")
    host.fail("vm.vbd_insert" if domain_type == "hvm" else "vm.vbd_plug", ApiError("VDI_IN_USE", vdi))
    assert await client.refusal("VBD.insert", vbd, vdi) == ["VDI_IN_USE", vdi]
    assert medium(pool, vbd) == (NULL, True)


async def test_a_drive_whose_medium_its_guest_has_ejected_is_empty(pool: Pool, client: Client) -> None:
    vm, vdi = await pool.vm(client, domain_type="hvm"), await a_disk(pool, client)
    vbd = await empty_drive(client, vm)
    await client.call("VM.start", vm, False, False)
    await client.call("VBD.insert", vbd, vdi)
    assert medium(pool, vbd) == (vdi, False)
    await pool.host_of(vm).guest_ejects(pool.row("VM", vm)["uuid"], vbd)
    await pool.until(lambda: medium(pool, vbd) == (NULL, True))
    assert pool.row("VBD", vbd)["currently_attached"]
    await pool.until(lambda: "insert" in pool.row("VBD", vbd)["allowed_operations"])


@pytest.mark.parametrize(("message", "method"), [("VBD.insert", "vm.vbd_insert"), ("VBD.eject", "vm.vbd_eject")])
async def test_what_is_in_a_drive_is_known_after_the_api_was_killed_before_it_could_write_that_down(
    pool: Pool, client: Client, message: str, method: str
) -> None:
    vm, vdi = await pool.vm(client, domain_type="hvm"), await a_disk(pool, client)
    vbd = await empty_drive(client, vm)
    await client.call("VM.start", vm, False, False)
    host, arguments = pool.host_of(vm), [vbd, vdi]
    if message == "VBD.eject":
        await client.call("VBD.insert", vbd, vdi)
        arguments = [vbd]
    done = host.after(method)
    client.begin(message, *arguments)
    await done.reached.wait()
    before = medium(pool, vbd)
    await pool.kill_api()
    done.open()
    await pool.start_api()
    await host.heartbeat()
    await pool.until(lambda: not pool.row("VBD", vbd)["current_operations"])
    await pool.until(lambda: medium(pool, vbd) != before)
    assert medium(pool, vbd) == ((vdi, False) if message == "VBD.insert" else (NULL, True))


async def test_a_medium_that_somebody_writes_to_is_not_inserted(pool: Pool, client: Client) -> None:
    first, second = await running(pool, client), await pool.vm(client, "second")
    vdi = await a_disk(pool, client)
    await client.call("VBD.plug", await client.call("VBD.create", records.vbd(first, vdi)))
    vbd = await empty_drive(client, second)
    assert await client.refusal("VBD.insert", vbd, vdi) == ["VDI_IN_USE", vdi]


async def test_a_control_domain_opens_disks_on_its_host(pool: Pool, client: Client) -> None:
    dom0 = next(ref for ref, row in pool.store.rows("VM").items() if row["is_control_domain"])
    host = pool.host_of(dom0)
    vdi = await a_disk(pool, client)
    vbd = await client.call("VBD.create", records.vbd(dom0, vdi))
    await client.call("VBD.plug", vbd)
    row = pool.row("VBD", vbd)
    assert (row["currently_attached"], row["device"]) == (True, f"fake/{pool.row('VDI', vdi)['location']}")
    assert [disk.dp for request in pool.disks.asked for disk in request.disks] == [f"loop/{row['uuid']}"]
    await client.call("VBD.unplug", vbd)
    assert not pool.row("VBD", vbd)["currently_attached"]
    assert host.served[-1] == "storage.close"


async def test_a_host_that_comes_back_says_which_disks_its_control_domain_has(pool: Pool, client: Client) -> None:
    dom0 = next(ref for ref, row in pool.store.rows("VM").items() if row["is_control_domain"])
    host = pool.host_of(dom0)
    vdis = [await a_disk(pool, client) for _ in range(2)]
    kept, lost = [await client.call("VBD.create", records.vbd(dom0, vdi)) for vdi in vdis]
    for vbd in (kept, lost):
        await client.call("VBD.plug", vbd)
    del host.datapaths[f"loop/{pool.row('VBD', lost)['uuid']}"]  # the machine was restarted
    stray = storage.DiskOpen(dp="loop/nobodys", sr="", location="", writable=False)
    mine = storage.DiskOpen(dp="vbd/vm/0", sr="", location="", writable=False)
    host.datapaths |= {stray.dp: stray, mine.dp: mine}
    await host.down()
    await host.up()
    await pool.until(lambda: not pool.row("VBD", lost)["currently_attached"])
    assert pool.row("VBD", kept)["currently_attached"]
    assert set(host.datapaths) == {f"loop/{pool.row('VBD', kept)['uuid']}", mine.dp}
    await client.call("VBD.plug", lost)
    assert pool.row("VBD", lost)["currently_attached"]


def test_what_is_no_device_is_named_by_its_path() -> None:
    file = storage.Backend(dp="", kind="file", path="/sr/a.qcow2", format="qcow2", writable=True)
    assert device_of(file) == "/sr/a.qcow2"


async def test_storage_pauses_no_disks(pool: Pool, client: Client) -> None:
    vm, vdi = await running(pool, client), await a_disk(pool, client)
    vbd = await client.call("VBD.create", records.vbd(vm, vdi))
    sr = pool.ref("SR", "storage")
    assert await client.refusal("VBD.pause", vbd) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    assert await client.refusal("VBD.unpause", vbd, "token") == ["SR_OPERATION_NOT_SUPPORTED", sr]
    await client.call("VBD.assert_attachable", vbd)


async def test_what_its_sr_wants_of_users_is_noted_with_the_vbd(pool: Pool, client: Client) -> None:
    vm, vdi = await pool.vm(client), await a_disk(pool, client)
    await pool.write(Update(cls="VDI", ref=vdi, fields={"sm_config": {"backend-kind": "vbd3", "a": "b"}}))
    vbd = await client.call("VBD.create", records.vbd(vm, vdi, other_config={"c": "d"}))
    assert pool.row("VBD", vbd)["other_config"] == {"backend-kind": "vbd3", "c": "d"}
