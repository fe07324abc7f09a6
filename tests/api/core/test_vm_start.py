"""VM.start and start_on: where a VM goes, what is left when it does not get there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shared.contracts.db import Update
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.fake_host import MIB, OVERHEAD
from tests.api.harness import Client, Pool, error_of

GUEST = 128 * MIB


async def free_memory(pool: Pool, client: Client, number: int = 0) -> int:
    return int(await client.call("host.compute_free_memory", pool.host_ref(number)))


async def test_a_started_vm_runs_on_a_host_and_its_rows_say_so(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.start", vm, False, False)
    record = await client.call("VM.get_record", vm)
    host = pool.host_of(vm)
    state = host.vms[record["uuid"]]
    assert (record["power_state"], record["domid"]) == ("Running", str(state.domid)) or record["domid"] == state.domid
    assert vm in await client.call("host.get_resident_VMs", record["resident_on"])
    metrics = await client.call("VM_metrics.get_record", record["metrics"])
    assert (metrics["memory_actual"], metrics["VCPUs_number"]) == (GUEST, 1)
    [console] = record["consoles"]
    assert await client.call("console.get_protocol", console) == "vt100"
    assert leftovers(pool) == {}
    await pool.settled()
    assert "clean_shutdown" in pool.row("VM", vm)["allowed_operations"]
    assert "start" not in pool.row("VM", vm)["allowed_operations"]


async def test_start_paused_leaves_it_paused(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.start", vm, True, False)
    assert pool.row("VM", vm)["power_state"] == "Paused"
    await client.call("VM.unpause", vm)
    assert pool.row("VM", vm)["power_state"] == "Running"


async def test_start_on_goes_to_that_host(pool: Pool, client: Client) -> None:
    for number in (0, 1):
        vm = await pool.vm(client, f"vm{number}")
        await client.call("VM.start_on", vm, pool.host_ref(number), False, False)
        assert pool.row("VM", vm)["resident_on"] == pool.host_ref(number)


async def test_start_on_a_disabled_host_is_refused_and_nothing_is_left(pool: Pool, client: Client) -> None:
    vm, host = await pool.vm(client), pool.host_ref(1)
    await client.call("host.disable", host)
    assert await client.refusal("VM.start_on", vm, host, False, False) == ["HOST_DISABLED", host]
    assert leftovers(pool) == {}


async def test_a_disabled_host_is_not_chosen(pool: Pool, client: Client) -> None:
    await client.call("host.disable", pool.host_ref(0))
    for number in range(4):
        vm = await pool.vm(client, f"vm{number}")
        await client.call("VM.start", vm, False, False)
        assert pool.row("VM", vm)["resident_on"] == pool.host_ref(1)


async def test_a_dead_host_is_not_chosen(pool: Pool, client: Client) -> None:
    metrics = pool.row("host", pool.host_ref(0))["metrics"]
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    vm = await pool.vm(client)
    await client.call("VM.start", vm, False, False)
    assert pool.row("VM", vm)["resident_on"] == pool.host_ref(1)
    assert await client.refusal("VM.start_on", vm, pool.host_ref(0), False, False) == [
        "VM_BAD_POWER_STATE",
        vm,
        "halted",
        "running",
    ]


async def test_a_start_that_fails_on_the_host_leaves_nothing_behind(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    free = await free_memory(pool, client)
    for host in pool.hosts:
        host.fail("vm.start", ApiError("FAILED_TO_START_EMULATOR", vm, "qemu", "it died"))
    assert await client.refusal("VM.start", vm, False, False) == ["FAILED_TO_START_EMULATOR", vm, "qemu", "it died"]
    assert pool.row("VM", vm)["power_state"] == "Halted"
    assert leftovers(pool) == {}
    assert await free_memory(pool, client) == free
    await pool.settled()
    assert "start" in pool.row("VM", vm)["allowed_operations"]


async def test_while_it_starts_the_rows_show_lock_host_and_reservation(pool: Pool, client: Client) -> None:
    vm, host = await pool.vm(client), pool.host_ref(1)
    free = await free_memory(pool, client, 1)
    gate = pool.hosts[1].hold("vm.start")
    starting = client.begin("VM.start_on", vm, host, False, False)
    await gate.reached.wait()
    row = pool.row("VM", vm)
    [task] = row["current_operations"]
    assert row["current_operations"] == {task: "start_on"}
    assert row["scheduled_to_be_resident_on"] == host
    assert pool.row("host", host)["current_operations"] == {task: "vm_start"}
    assert await client.call("task.get_name_label", task) == "VM.start_on"
    assert await free_memory(pool, client, 1) == free - GUEST - OVERHEAD
    gate.open()
    await starting
    assert pool.row("task", task) is None
    assert leftovers(pool) == {}


async def test_devices_of_a_vm_that_starts_are_spoken_for(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    network = pool.ref("network", "network")
    sr = pool.ref("SR", "storage")
    vdi = await client.call("VDI.create", records.vdi(sr))
    vbd = await client.call("VBD.create", records.vbd(vm, vdi))
    vif = await client.call("VIF.create", records.vif(vm, network))
    gates = [host.hold("vm.start") for host in pool.hosts]
    starting = client.begin("VM.start", vm, False, False)
    await asyncio.wait([asyncio.create_task(gate.reached.wait()) for gate in gates], return_when="FIRST_COMPLETED")
    [task] = pool.row("VM", vm)["current_operations"]
    for cls, ref in (("VBD", vbd), ("VIF", vif)):
        assert pool.row(cls, ref)["current_operations"] == {task: "attach"}
        assert (await client.refusal(f"{cls}.destroy", ref))[0] == "OTHER_OPERATION_IN_PROGRESS"
    for gate in gates:
        gate.open()
    await starting
    assert pool.row("VBD", vbd)["currently_attached"]
    assert pool.row("VIF", vif)["currently_attached"]
    assert leftovers(pool) == {}


async def test_of_two_concurrent_starts_one_wins_and_the_other_hears_that_it_runs(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    calls = [client.call("VM.start", vm, False, False) for _ in range(6)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    errors = [outcome.description for outcome in outcomes if isinstance(outcome, ApiError)]
    assert errors == [["VM_BAD_POWER_STATE", vm, "halted", "running"]] * 5
    assert sum(host.served.count("vm.start") for host in pool.hosts) == 1
    assert leftovers(pool) == {}


async def test_twenty_starts_at_once_do_not_overcommit_a_small_host(tmp_path: Path) -> None:
    room = 3 * (GUEST + OVERHEAD)
    pool = await Pool.start(tmp_path, hosts=1, memory=room + 20 * MIB)
    try:
        client = await pool.login()
        host = pool.hosts[0]
        most = 0

        async def watch() -> None:
            nonlocal most
            most = max(most, host.used())

        for _ in range(20):
            host.then("after vm.start", watch)
        vms = [await pool.vm(client, f"vm{number}") for number in range(20)]
        calls = [client.call("VM.start", vm, False, False) for vm in vms]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        codes = {outcome.code for outcome in outcomes if isinstance(outcome, ApiError)}
        assert sum(outcome == "" for outcome in outcomes) == 3
        assert codes <= {"HOST_NOT_ENOUGH_FREE_MEMORY", "NO_HOSTS_AVAILABLE"}
        assert most <= room
        assert leftovers(pool) == {}
    finally:
        await pool.stop()


async def test_a_host_that_goes_away_during_the_start_is_reported_and_its_vm_is_found_when_it_is_back(
    pool: Pool, client: Client
) -> None:
    vm, ref = await pool.vm(client), pool.host_ref(1)
    host = pool.hosts[1]
    gate = host.after("vm.start")
    starting = client.begin("VM.start_on", vm, ref, False, False)
    await gate.reached.wait()
    await host.down()
    assert (await error_of(starting))[0] == "HOST_OFFLINE"
    assert leftovers(pool) == {}
    assert host.vms
    await host.up()
    await pool.until(lambda: pool.row("VM", vm)["power_state"] == "Running")
    assert pool.row("VM", vm)["resident_on"] == ref


async def test_a_vm_whose_disk_is_on_an_sr_that_no_host_has_is_not_started(pool: Pool, client: Client) -> None:
    vm, sr, host = await pool.vm(client), pool.ref("SR", "storage"), pool.host_ref(0)
    await client.call("VBD.create", records.vbd(vm, await client.call("VDI.create", records.vdi(sr))))
    unplugged = {"currently_attached": False}
    await pool.write(*[Update(cls="PBD", ref=ref, fields=unplugged) for ref in pool.store.rows("PBD")])
    assert await client.refusal("VM.start", vm, False, False) == ["NO_HOSTS_AVAILABLE"]
    assert await client.refusal("VM.start_on", vm, host, False, False) == ["VM_REQUIRES_SR", vm, sr]
    assert leftovers(pool) == {}
