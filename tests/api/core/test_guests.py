"""What VMs do by themselves, and what hosts say after they were away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.bus.contract import Topic
from shared.bus.interface import BusError
from shared.contracts import vm as contract
from shared.contracts.alerts import ALERT, Alert
from shared.contracts.db import Update
from shared.contracts.vm import Cause, PowerState
from shared.store import NULL
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.fake_host import FakeHost
from tests.api.harness import Client, Pool, error_of


async def running_vm(pool: Pool, client: Client, number: int = 0, name: str = "vm") -> str:
    vm = await pool.vm(client, name)
    await client.call("VM.start_on", vm, pool.host_ref(number), False, False)
    return vm


def uuid_of(pool: Pool, vm: str) -> str:
    return str(pool.row("VM", vm)["uuid"])


async def power_state(pool: Pool, vm: str, wanted: str) -> None:
    await pool.until(lambda: pool.row("VM", vm)["power_state"] == wanted)


async def test_a_guest_that_shuts_down_by_itself_is_halted(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    vif = await client.call("VIF.create", records.vif(vm, pool.ref("network", "network")))
    await client.call("VM.start_on", vm, pool.host_ref(0), False, False)
    await pool.hosts[0].guest_halts(uuid_of(pool, vm))
    await power_state(pool, vm, "Halted")
    row = pool.row("VM", vm)
    assert (row["resident_on"], row["domid"], row["consoles"]) == (NULL, -1, [])
    assert not pool.row("VIF", vif)["currently_attached"]
    assert "start" in row["allowed_operations"]
    assert leftovers(pool) == {}
    await client.call("VM.start_on", vm, pool.host_ref(1), False, False)


async def test_people_are_told_what_a_guest_did(pool: Pool, client: Client) -> None:
    told: list[Alert] = []
    heard = asyncio.Event()

    def listen(alert: Alert, _: str) -> None:
        told.append(alert)
        heard.set()

    await pool.api.bus.subscribe(ALERT, listen)
    for cause, name in (
        (Cause.GUEST_SHUTDOWN, "VM_SHUTDOWN"),
        (Cause.GUEST_CRASH, "VM_CRASHED"),
        (Cause.PROCESS_DIED, "VM_CRASHED"),
    ):
        vm = await running_vm(pool, client)
        await heard.wait()
        assert told.pop().name == "VM_STARTED"
        heard.clear()
        await pool.hosts[0].guest_halts(uuid_of(pool, vm), cause)
        await asyncio.wait_for(heard.wait(), 5)
        alert = told.pop()
        assert (alert.name, alert.obj_uuid) == (name, uuid_of(pool, vm))
        heard.clear()


async def test_people_are_told_of_a_disk_without_room_and_of_one_that_fails(pool: Pool, client: Client) -> None:
    told: asyncio.Queue[Alert] = asyncio.Queue()
    vm = await pool.vm(client)
    sr = next(iter(pool.store.rows("SR")))
    vdi = await client.call("VDI.create", records.vdi(sr, name_label="data"))
    vbd = await client.call("VBD.create", records.vbd(vm, vdi, userdevice="5"))
    await client.call("VM.start_on", vm, pool.host_ref(0), False, False)
    await pool.api.bus.subscribe(ALERT, lambda alert, _: told.put_nowait(alert))
    host, uuid = pool.hosts[0], uuid_of(pool, vm)
    place = f"SR '{pool.row('SR', sr)['name_label']}' (uuid: {pool.row('SR', sr)['uuid']})"
    disk = f"disk 'data' (uuid: {pool.row('VDI', vdi)['uuid']}, device 5) on {place}"
    steps = [
        (
            host.disk_full(uuid, vbd),
            "Paused",
            "VM_DISK_FULL",
            f"is paused: there is no room for what it writes to {disk}",
        ),
        (host.disk_has_room(uuid), "Running", "VM_DISK_ROOM", "goes on: there is room again for what it writes"),
        (host.disk_fails(uuid, vbd), "Running", "VM_DISK_ERROR", f"was told of an error of {disk}"),
    ]
    for happens, state, name, words in steps:
        await happens
        alert = await asyncio.wait_for(told.get(), 5)
        assert (alert.name, alert.cls, alert.obj_uuid) == (name, "VM", uuid)
        assert alert.body == f"VM 'vm' (uuid: {uuid}) {words}"
        await power_state(pool, vm, state)
    await host.disk_full(uuid, vbd)
    await power_state(pool, vm, "Paused")
    await client.call("VM.unpause", vm)
    await power_state(pool, vm, "Running")


async def test_a_disk_without_room_that_nobody_heard_of_is_told_when_the_host_is_asked(
    pool: Pool, client: Client
) -> None:
    vm = await running_vm(pool, client)
    told: asyncio.Queue[Alert] = asyncio.Queue()
    await pool.api.bus.subscribe(ALERT, lambda alert, _: told.put_nowait(alert))
    host = pool.hosts[0]
    host.forget_history(uuid_of(pool, vm), power_state=PowerState.PAUSED, stalled="OpaqueRef:vbd")
    await host.say(host.vms[uuid_of(pool, vm)], Cause.REQUEST)
    alert = await asyncio.wait_for(told.get(), 5)
    assert (alert.name, alert.obj_uuid) == ("VM_DISK_FULL", uuid_of(pool, vm))


async def test_errors_of_two_disks_are_both_told_although_a_call_was_busy_with_the_vm(
    pool: Pool, client: Client
) -> None:
    vm = await running_vm(pool, client)
    told: asyncio.Queue[Alert] = asyncio.Queue()
    host, uuid = pool.hosts[0], uuid_of(pool, vm)
    gate = host.hold("vm.pause")
    pausing = client.begin("VM.pause", vm)
    await gate.reached.wait()
    await pool.api.bus.subscribe(ALERT, lambda alert, _: told.put_nowait(alert))
    for vbd in ("OpaqueRef:first", "OpaqueRef:second"):
        await host.disk_fails(uuid, vbd)
    await host.say(host.vms[uuid], Cause.REQUEST)
    gate.open()
    await pausing
    names = [(await asyncio.wait_for(told.get(), 10)).name for _ in range(3)]
    assert sorted(names) == ["VM_DISK_ERROR", "VM_DISK_ERROR", "VM_PAUSED"]


def refusing_an_alert(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The bus does not take the next one; set when that has happened."""
    publish, refused = pool.api.bus.publish, asyncio.Event()

    async def refuse_once(topic: Topic[Any], message: Any, **key: Any) -> None:
        if topic is ALERT and not refused.is_set():
            refused.set()
            raise BusError("INTERNAL_ERROR", "the broker is away")
        await publish(topic, message, **key)

    monkeypatch.setattr(pool.api.bus, "publish", refuse_once)
    return refused


async def test_a_call_has_succeeded_although_nobody_can_be_told(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = refusing_an_alert(pool, monkeypatch)
    vm = await running_vm(pool, client)
    assert (refused.is_set(), pool.row("VM", vm)["power_state"]) == (True, "Running")


async def test_what_a_guest_did_is_told_once_the_bus_takes_it(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await running_vm(pool, client)
    told: asyncio.Queue[Alert] = asyncio.Queue()
    await pool.api.bus.subscribe(ALERT, lambda alert, _: told.put_nowait(alert))
    refused = refusing_an_alert(pool, monkeypatch)
    await pool.hosts[0].guest_halts(uuid_of(pool, vm), Cause.GUEST_CRASH)
    alert = await asyncio.wait_for(told.get(), 10)
    assert (alert.name, refused.is_set()) == ("VM_CRASHED", True)
    assert pool.row("VM", vm)["power_state"] == "Halted"


async def test_a_guest_that_reboots_by_itself_has_a_new_domain(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client)
    before = pool.row("VM", vm)["domid"]
    await pool.hosts[0].guest_reboots(uuid_of(pool, vm))
    await pool.until(lambda: pool.row("VM", vm)["domid"] != before)
    assert pool.row("VM", vm)["power_state"] == "Running"


async def test_a_crash_before_the_start_has_been_answered_is_not_lost(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    host = pool.hosts[0]
    gate = host.after("vm.start")
    starting = client.begin("VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    await host.guest_halts(uuid_of(pool, vm), Cause.GUEST_CRASH)
    gate.open()
    await starting
    await power_state(pool, vm, "Halted")
    assert leftovers(pool) == {}


async def test_a_state_from_before_what_a_call_has_written_is_no_news(pool: Pool, client: Client) -> None:
    """The event of a shutdown arrives after the next start has ended."""
    vm = await running_vm(pool, client)
    host = pool.hosts[0]
    await client.call("VM.hard_shutdown", vm)
    late = contract.VmState(uuid=uuid_of(pool, vm), ref=vm, power_state=PowerState.HALTED, seq=host.latest_seq)
    await client.call("VM.start_on", vm, pool.host_ref(0), False, False)
    await host.say(late, Cause.GUEST_SHUTDOWN)
    other = await running_vm(pool, client, name="other")
    await host.guest_halts(uuid_of(pool, other))
    await power_state(pool, other, "Halted")
    assert pool.row("VM", vm)["power_state"] == "Running"


async def test_what_a_call_has_written_is_not_written_again(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await pool.settled()
    await pool.settled()
    before = pool.store.generation
    await client.call("VM.start_on", vm, pool.host_ref(0), False, False)
    await pool.settled()
    await pool.settled()
    assert pool.store.generation - before <= 3  # lock, outcome, allowed operations of others


async def test_a_vm_that_halts_while_a_shutdown_is_on_its_way_is_reported_as_halted(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client)
    gate = pool.hosts[0].hold("vm.shutdown")
    shutting = client.begin("VM.hard_shutdown", vm)
    await gate.reached.wait()
    await pool.hosts[0].guest_halts(uuid_of(pool, vm))
    gate.open()
    assert await error_of(shutting) == ["VM_BAD_POWER_STATE", vm, "Running", "Halted"]
    await power_state(pool, vm, "Halted")
    assert leftovers(pool) == {}


# ---- hosts that come and go


async def restarted(host: FakeHost) -> None:
    await host.down()
    await host.up()


async def test_a_host_whose_services_are_started_again_keeps_its_vms(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client, 1)
    host = pool.hosts[1]
    gate = host.hold("vm.list")
    await restarted(host)
    await gate.reached.wait()
    gate.open()
    await pool.settled()
    assert pool.row("VM", vm)["power_state"] == "Running"
    await client.call("VM.clean_shutdown", vm)


async def test_vms_that_a_host_does_not_have_any_more_are_halted(pool: Pool, client: Client) -> None:
    vm, stays = await running_vm(pool, client, 1), await running_vm(pool, client, 1, "stays")
    host = pool.hosts[1]
    await host.down()
    del host.vms[uuid_of(pool, vm)]
    await host.up()
    await power_state(pool, vm, "Halted")
    assert pool.row("VM", stays)["power_state"] == "Running"
    assert leftovers(pool) == {}


async def test_vms_that_changed_while_nobody_listened_are_shown_as_they_are(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client, 1)
    host = pool.hosts[1]
    await host.down()
    host.forget_history(uuid_of(pool, vm), power_state=PowerState.PAUSED)
    await host.up()
    await power_state(pool, vm, "Paused")


async def test_a_vm_that_runs_elsewhere_by_now_is_stopped_where_it_does_not_belong(pool: Pool, client: Client) -> None:
    """Its host was away, it was declared halted and started on another: there must be one of it."""
    vm = await running_vm(pool, client, 1)
    away, other = pool.hosts[1], pool.hosts[0]
    await away.down()
    metrics = pool.row("host", pool.host_ref(1))["metrics"]
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    await client.call("VM.power_state_reset", vm)
    await client.call("VM.start", vm, False, False)
    assert pool.row("VM", vm)["resident_on"] == pool.host_ref(0)
    stopped = away.after("vm.shutdown")
    await away.up()
    await asyncio.wait_for(stopped.reached.wait(), 5)
    stopped.open()
    await pool.settled()
    assert away.vms == {}
    assert list(other.vms) == [uuid_of(pool, vm)]
    assert pool.row("VM", vm)["resident_on"] == pool.host_ref(0)


async def test_a_vm_without_a_record_is_stopped(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client, 1)
    host = pool.hosts[1]
    await host.down()
    metrics = pool.row("host", pool.host_ref(1))["metrics"]
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    await client.call("VM.power_state_reset", vm)
    await client.call("VM.destroy", vm)
    stopped = host.after("vm.shutdown")
    await host.up()
    await asyncio.wait_for(stopped.reached.wait(), 5)
    assert host.vms == {}


async def test_a_vm_started_while_its_host_is_being_asked_is_not_taken_for_gone(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    host = pool.hosts[1]
    gate = host.after("vm.list")
    await restarted(host)
    await asyncio.wait_for(gate.reached.wait(), 5)
    await client.call("VM.start_on", vm, pool.host_ref(1), False, False)
    gate.open()
    await pool.settled()
    await pool.settled()
    assert pool.row("VM", vm)["power_state"] == "Running"


async def test_a_host_that_comes_back_under_an_operation_is_judged_when_the_operation_has_ended(
    pool: Pool, client: Client
) -> None:
    """Its services died in the middle of a shutdown, and the VM with them."""
    vm = await running_vm(pool, client, 1)
    host = pool.hosts[1]
    gate = host.hold("vm.shutdown")
    shutting = client.begin("VM.hard_shutdown", vm)
    await gate.reached.wait()
    await host.down()
    host.vms.clear()
    await host.up()
    await asyncio.wait([shutting])
    await power_state(pool, vm, "Halted")
    assert leftovers(pool) == {}


async def test_a_dead_host_is_offline_at_once(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client, 1)
    await pool.hosts[1].down()
    host = pool.hosts[1].uuid
    assert await asyncio.wait_for(client.refusal("VM.hard_shutdown", vm), 3) in (
        ["HOST_OFFLINE", host],
        ["HOST_OFFLINE", pool.host_ref(1)],
    )
    assert leftovers(pool) == {}
    assert pool.row("VM", vm)["power_state"] == "Running"
