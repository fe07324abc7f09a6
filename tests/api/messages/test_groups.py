"""VMs that belong together: appliances, groups, snapshot schedules."""

from __future__ import annotations

import asyncio

from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool

NAMES = {"name_label": "a", "name_description": ""}


async def appliance(pool: Pool, client: Client, *vms: str) -> str:
    ref = str(await client.call("VM_appliance.create", NAMES))
    for vm in vms:
        await client.call("VM.set_appliance", vm, ref)
    return ref


async def test_an_appliance_starts_and_stops_its_vms(pool: Pool, client: Client) -> None:
    vms = [await pool.vm(client, f"vm{number}") for number in range(3)]
    ref = await appliance(pool, client, *vms)
    assert pool.row("VM_appliance", ref)["allowed_operations"] == ["start"]
    await client.call("VM_appliance.start", ref, False)
    assert {pool.row("VM", vm)["power_state"] for vm in vms} == {"Running"}
    assert pool.row("VM_appliance", ref)["allowed_operations"] == ["clean_shutdown", "hard_shutdown", "shutdown"]
    await client.call("VM_appliance.hard_shutdown", ref)
    assert {pool.row("VM", vm)["power_state"] for vm in vms} == {"Halted"}
    assert pool.store.rows("task") == {}
    assert leftovers(pool) == {}


async def test_vms_of_a_lower_order_are_up_before_the_others_start(pool: Pool, client: Client) -> None:
    first = await pool.vm(client, "first", order=0)
    second = await pool.vm(client, "second", order=1)
    ref = await appliance(pool, client, second, first)
    gates = [host.hold("vm.start") for host in pool.hosts]
    starting = client.begin("VM_appliance.start", ref, False)
    reached = [asyncio.create_task(gate.reached.wait()) for gate in gates]
    await asyncio.wait(reached, return_when=asyncio.FIRST_COMPLETED)
    assert pool.row("VM", first)["current_operations"]
    assert not pool.row("VM", second)["current_operations"]
    for gate in gates:
        gate.open()
    await starting
    for waiting in reached:
        waiting.cancel()
    assert pool.row("VM", second)["power_state"] == "Running"


async def test_vms_that_fail_are_named_and_the_others_run(pool: Pool, client: Client) -> None:
    good, bad = await pool.vm(client, "good"), await pool.vm(client, "bad")
    await client.call("VM.add_to_blocked_operations", bad, "start", "because")
    ref = await appliance(pool, client, good, bad)
    assert await client.refusal("VM_appliance.start", ref, False) == ["OPERATION_PARTIALLY_FAILED", "start", bad]
    assert pool.row("VM", good)["power_state"] == "Running"
    assert leftovers(pool) == {}


async def test_an_appliance_without_vms_has_nothing_to_do(pool: Pool, client: Client) -> None:
    ref = await appliance(pool, client)
    for message in ("VM_appliance.clean_shutdown", "VM_appliance.shutdown"):
        assert (await client.refusal(message, ref))[0] == "OPERATION_NOT_ALLOWED"
    assert pool.row("VM_appliance", ref)["allowed_operations"] == []


async def test_templates_belong_to_no_appliance_group_or_schedule(pool: Pool, client: Client) -> None:
    template = pool.ref("VM", "Tiny guest")
    for message, value in (("set_appliance", "x"), ("set_groups", []), ("set_snapshot_schedule", "x")):
        assert (await client.refusal(f"VM.{message}", template, value))[0] == "OPERATION_NOT_ALLOWED"


async def test_a_vm_is_in_one_group_at_most(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    group = await client.call("VM_group.create", {**NAMES, "placement": "anti_affinity"})
    await client.call("VM.set_groups", vm, [group])
    assert pool.row("VM_group", group)["VMs"] == [vm]
    assert await client.refusal("VM.set_groups", vm, [group, group]) == ["TOO_MANY_GROUPS"]


async def test_a_schedule_with_vms_stays(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    schedule = await client.call("VMSS.create", {**NAMES, "type": "snapshot", "frequency": "daily"})
    await client.call("VM.set_snapshot_schedule", vm, schedule)
    assert await client.refusal("VMSS.destroy", schedule) == ["VMSS_HAS_VM"]
    await client.call("VM.set_snapshot_schedule", vm, "OpaqueRef:NULL")
    await client.call("VMSS.destroy", schedule)
    assert pool.row("VMSS", schedule) is None
