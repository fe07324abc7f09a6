"""VMs that are made, copied, provisioned and destroyed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.contracts.db import Update
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.fake_host import MIB
from tests.api.harness import Client, Pool, error_of


async def template(pool: Pool, client: Client, *sizes: int, sr: str | None = None) -> str:
    """A template whose `other_config:disks` asks for disks of these sizes."""
    vm = str(await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "template"))
    uuid = pool.row("SR", pool.ref("SR", "storage"))["uuid"] if sr is None else sr
    items = "".join(f'<disk device="{n}" size="{size}" sr="{uuid}" bootable="true"/>' for n, size in enumerate(sizes))
    await client.call("VM.add_to_other_config", vm, "disks", f"<provision>{items}</provision>")
    return vm


async def test_a_clone_of_the_template_is_provisioned_with_its_disks(pool: Pool, client: Client) -> None:
    vm = await client.call("VM.clone", await template(pool, client, MIB, 2 * MIB), "mine")
    await client.call("VM.provision", vm)
    record = await client.call("VM.get_record", vm)
    assert not record["is_a_template"]
    assert "disks" not in record["other_config"]
    drives = [await client.call("VBD.get_record", ref) for ref in record["VBDs"]]
    assert sorted(drive["userdevice"] for drive in drives) == ["0", "1"]
    assert all("owner" in drive["other_config"] for drive in drives)
    assert sorted(pool.row("VDI", drive["VDI"])["virtual_size"] for drive in drives) == [MIB, 2 * MIB]
    assert leftovers(pool) == {}
    await client.call("VM.start", vm, False, False)
    assert all(pool.row("VBD", ref)["currently_attached"] for ref in record["VBDs"])


async def test_a_provision_that_runs_out_of_space_removes_the_disks_it_made(pool: Pool, client: Client) -> None:
    pool.disks.size = 5 * MIB
    vm = await template(pool, client, 2 * MIB, 2 * MIB, 2 * MIB)
    assert (await client.refusal("VM.provision", vm))[0] == "SR_FULL"
    assert pool.row("VM", vm)["is_a_template"]
    assert pool.row("VM", vm)["VBDs"] == []
    assert "disks" in pool.row("VM", vm)["other_config"]
    assert pool.store.rows("VDI") == {}
    assert leftovers(pool) == {}


async def test_a_provision_names_what_is_wrong_with_the_template(pool: Pool, client: Client) -> None:
    vm = await template(pool, client, MIB, sr="nowhere")
    assert await client.refusal("VM.provision", vm) == ["UUID_INVALID", "sr", "nowhere"]
    broken = await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "broken")
    await client.call("VM.add_to_other_config", broken, "disks", "<provision")
    assert (await client.refusal("VM.provision", broken))[0] == "INVALID_VALUE"
    await client.call("VM.set_other_config", broken, {"postinstall": "/bin/sh"})
    assert (await client.refusal("VM.provision", broken))[0] == "PERMISSION_DENIED"
    plain = await pool.vm(client)
    assert await client.refusal("VM.provision", plain) == ["PROVISION_ONLY_ALLOWED_ON_TEMPLATE"]
    assert leftovers(pool) == {}


async def test_a_clone_has_copies_of_the_disks_and_its_own_addresses(pool: Pool, client: Client) -> None:
    vm, sr = await pool.vm(client), pool.ref("SR", "storage")
    vdi = await client.call("VDI.create", records.vdi(sr))
    await client.call("VBD.create", records.vbd(vm, vdi))
    await client.call("VBD.create", records.vbd(vm, "", type="CD", mode="RO", empty=True))
    vif = await client.call("VIF.create", records.vif(vm, pool.ref("network", "network")))
    clone = await client.call("VM.clone", vm, "clone")
    record = await client.call("VM.get_record", clone)
    drives = [pool.row("VBD", ref) for ref in record["VBDs"]]
    assert {drive["type"] for drive in drives} == {"Disk", "CD"}
    [copied] = [drive["VDI"] for drive in drives if drive["type"] == "Disk"]
    assert copied not in (vdi, "OpaqueRef:NULL")
    [other] = record["VIFs"]
    assert pool.row("VIF", other)["MAC"] != pool.row("VIF", vif)["MAC"]
    assert record["uuid"] != pool.row("VM", vm)["uuid"]
    assert "start" in record["allowed_operations"]
    assert leftovers(pool) == {}


async def test_a_clone_whose_second_disk_fails_leaves_none(pool: Pool, client: Client) -> None:
    vm, sr = await pool.vm(client), pool.ref("SR", "storage")
    for _ in range(2):
        await client.call("VBD.create", records.vbd(vm, await client.call("VDI.create", records.vdi(sr))))
    before = set(pool.store.rows("VM"))
    for host in pool.hosts:
        host.then("storage.vdi_clone", nothing)
        host.fail("storage.vdi_clone", ApiError("SR_FULL", "1", "2"))
    assert (await client.refusal("VM.clone", vm, "clone"))[0] == "SR_FULL"
    assert set(pool.store.rows("VM")) == before
    assert len(pool.store.rows("VDI")) == 2
    assert leftovers(pool) == {}


async def nothing() -> None:
    return


async def test_many_clones_of_one_template_at_once(pool: Pool, client: Client) -> None:
    source = pool.ref("VM", "Tiny guest")
    vms = await asyncio.gather(*(client.call("VM.clone", source, f"vm{number}") for number in range(40)))
    assert len(set(vms)) == 40
    seeds = {pool.row("VM", vm)["other_config"]["mac_seed"] for vm in vms}
    assert len(seeds) == 40
    assert leftovers(pool) == {}


async def test_a_destroyed_vm_leaves_nothing_but_its_disks(pool: Pool, client: Client) -> None:
    before = {cls: set(table.rows) for cls, table in pool.store.tables.items()}
    vm, sr = await pool.vm(client), pool.ref("SR", "storage")
    vdi = await client.call("VDI.create", records.vdi(sr))
    await client.call("VBD.create", records.vbd(vm, vdi))
    await client.call("VIF.create", records.vif(vm, pool.ref("network", "network")))
    await client.call("VM.start", vm, False, False)
    await client.call("VM.hard_shutdown", vm)
    await client.call("VM.destroy", vm)
    await pool.settled()
    left = {
        cls: set(table.rows) - before[cls] for cls, table in pool.store.tables.items() if set(table.rows) - before[cls]
    }
    assert left == {"VDI": {vdi}}
    assert pool.row("VDI", vdi)["VBDs"] == []
    assert await client.refusal("VM.destroy", vm) == ["HANDLE_INVALID", "VM", vm]
    assert leftovers(pool) == {}


async def test_what_must_not_be_destroyed_is_not(pool: Pool, client: Client) -> None:
    running = await pool.vm(client)
    await client.call("VM.start", running, False, False)
    assert await client.refusal("VM.destroy", running) == [
        "VM_BAD_POWER_STATE",
        running,
        "halted, suspended",
        "running",
    ]
    tiny = pool.ref("VM", "Tiny guest")
    assert await client.refusal("VM.destroy", tiny) == ["VM_IS_TEMPLATE", tiny, "destroy"]
    domain = pool.row("host", pool.host_ref(0))["control_domain"]
    assert (await client.refusal("VM.destroy", domain))[0] in ("OPERATION_NOT_ALLOWED", "VM_BAD_POWER_STATE")
    assert leftovers(pool) == {}


async def test_children_of_a_destroyed_vm_move_up_to_its_parent(pool: Pool, client: Client) -> None:
    top, middle, bottom = [await pool.vm(client, name) for name in ("top", "middle", "bottom")]
    await pool.write(
        Update(cls="VM", ref=middle, fields={"parent": top}), Update(cls="VM", ref=bottom, fields={"parent": middle})
    )
    await client.call("VM.destroy", middle)
    assert pool.row("VM", bottom)["parent"] == top
    assert pool.row("VM", top)["children"] == [bottom]


async def test_nothing_is_added_to_a_vm_that_is_being_destroyed(pool: Pool, client: Client) -> None:
    for number in range(10):
        vm, network = await pool.vm(client, f"vm{number}"), pool.ref("network", "network")
        calls = [
            client.call("VM.destroy", vm),
            client.call("VIF.create", records.vif(vm, network)),
            client.call("VBD.create", records.vbd(vm, "", type="CD", mode="RO", empty=True)),
        ]
        outcomes = await asyncio.gather(*(calls if number % 2 else calls[::-1]), return_exceptions=True)
        assert pool.row("VM", vm) is None, outcomes
        assert leftovers(pool) == {}


async def test_a_vm_is_made_from_a_record(pool: Pool, client: Client) -> None:
    record = await client.call("VM.get_record", pool.ref("VM", "Tiny guest"))
    vm = await client.call("VM.create", {**record, "name_label": "made", "is_a_template": False, "affinity": ""})
    row = pool.row("VM", vm)
    assert (row["name_label"], row["power_state"], row["is_a_template"]) == ("made", "Halted", False)
    assert row["uuid"] != record["uuid"]
    assert "start" in row["allowed_operations"]
    await client.call("VM.start", vm, False, False)


async def test_memory_limits_are_kept_in_order(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.set_memory_limits", vm, 64 * MIB, 256 * MIB, 128 * MIB, 256 * MIB)
    assert pool.row("VM", vm)["memory_static_max"] == 256 * MIB
    order = ["MEMORY_CONSTRAINT_VIOLATION_ORDER"]
    assert await client.refusal("VM.set_memory_limits", vm, 64 * MIB, 256 * MIB, 32 * MIB, 256 * MIB) == order
    assert await client.refusal("VM.set_memory_dynamic_max", vm, 512 * MIB) == order
    assert leftovers(pool) == {}
    await client.call("VM.start", vm, False, False)
    assert (await client.refusal("VM.set_memory_static_max", vm, 512 * MIB))[0] == "VM_BAD_POWER_STATE"


@pytest.mark.parametrize("value", [0, -1])
async def test_there_is_at_least_one_cpu(pool: Pool, client: Client, value: int) -> None:
    vm = await pool.vm(client)
    assert (await client.refusal("VM.set_VCPUs_max", vm, value))[0] == "INVALID_VALUE"
    assert (await client.refusal("VM.set_VCPUs_at_startup", vm, value))[0] == "INVALID_VALUE"


async def test_power_state_reset_is_refused_while_the_host_or_the_vm_lives(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.start_on", vm, pool.host_ref(1), False, False)
    assert (await client.refusal("VM.power_state_reset", vm))[0] in ("DOMAIN_EXISTS", "HOST_IS_LIVE")
    assert leftovers(pool) == {}
    metrics = pool.row("host", pool.host_ref(1))["metrics"]
    await pool.hosts[1].down()
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    await client.call("VM.power_state_reset", vm)
    assert pool.row("VM", vm)["power_state"] == "Halted"
    assert leftovers(pool) == {}


async def test_shutdown_pulls_the_plug_when_the_guest_does_not_follow(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.start_on", vm, pool.host_ref(0), False, False)
    pool.hosts[0].fail("guest.shutdown", ApiError("VM_SHUTDOWN_TIMEOUT", vm, "1200."))
    await client.call("VM.shutdown", vm)
    assert pool.row("VM", vm)["power_state"] == "Halted"
    assert pool.hosts[0].served.count("vm.shutdown") == 2
    assert leftovers(pool) == {}


async def test_a_cancelled_shutdown_does_not_pull_the_plug(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.start_on", vm, pool.host_ref(0), False, False)
    gate = pool.hosts[0].hold("guest.shutdown")
    shutting = client.begin("VM.shutdown", vm)
    await gate.reached.wait()
    [task] = pool.store.rows("task")
    await client.call("task.cancel", task)
    assert await error_of(shutting) == ["TASK_CANCELLED", task]
    assert pool.row("VM", vm)["power_state"] == "Running"
    assert leftovers(pool) == {}


async def test_reboots_pauses_and_back(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.start", vm, False, False)
    domids: list[Any] = [pool.row("VM", vm)["domid"]]
    for message in ("VM.clean_reboot", "VM.hard_reboot"):
        await client.call(message, vm)
        domids.append(pool.row("VM", vm)["domid"])
    assert len(set(domids)) == 3
    for message, state in (("VM.pause", "Paused"), ("VM.unpause", "Running"), ("VM.clean_shutdown", "Halted")):
        await client.call(message, vm)
        assert pool.row("VM", vm)["power_state"] == state
        assert pool.row("VM", vm)["consoles"] if state != "Halted" else not pool.row("VM", vm)["consoles"]
    assert leftovers(pool) == {}
