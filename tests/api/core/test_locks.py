"""Locks: who waits, who interrupts whom, and that nothing is left whatever ends a call."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from services.api import sweep
from services.api.operations import vm_lifecycle
from shared.bus.interface import DeadlineExceeded
from shared.contracts import db
from shared.contracts.db import Create, Delete
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool, error_of


async def running_vm(pool: Pool, client: Client, number: int = 0) -> str:
    vm = await pool.vm(client)
    await client.call("VM.start_on", vm, pool.host_ref(number), False, False)
    return vm


async def locked(pool: Pool, vm: str, operation: str) -> None:
    await pool.until(lambda: operation in pool.row("VM", vm)["current_operations"].values())


async def test_a_call_queues_behind_the_operation_that_runs(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client)
    gate = pool.hosts[0].hold("vm.pause")
    pausing = client.begin("VM.pause", vm)
    await gate.reached.wait()
    rebooting = client.begin("VM.clean_reboot", vm)
    await asyncio.sleep(0.02)
    assert not rebooting.done()
    gate.open()
    await pausing
    assert await error_of(rebooting) == ["VM_BAD_POWER_STATE", vm, "running", "paused"]
    assert leftovers(pool) == {}


async def test_hard_shutdown_interrupts_a_clean_one(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client)
    gate = pool.hosts[0].hold("guest.shutdown")
    clean = client.begin("VM.clean_shutdown", vm)
    await gate.reached.wait()
    [task] = pool.row("VM", vm)["current_operations"]
    await asyncio.wait_for(client.call("VM.hard_shutdown", vm), 30)
    assert await error_of(clean) == ["TASK_CANCELLED", task]
    assert gate.cancelled.is_set()
    assert pool.row("VM", vm)["power_state"] == "Halted"
    assert leftovers(pool) == {}


async def test_hard_shutdown_does_not_miss_that_the_clean_one_ends_meanwhile(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client)
    gate = pool.hosts[0].after("vm.shutdown")
    clean = client.begin("VM.clean_shutdown", vm)
    await gate.reached.wait()
    hard = client.begin("VM.hard_shutdown", vm)
    gate.open()
    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(clean, hard, return_exceptions=True)
    assert pool.row("VM", vm)["power_state"] == "Halted"
    assert "" in outcomes or all(isinstance(outcome, ApiError) for outcome in outcomes)
    assert leftovers(pool) == {}


async def test_two_hard_shutdowns_stop_the_vm_once(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client)
    calls = [client.call("VM.hard_shutdown", vm) for _ in range(3)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(isinstance(outcome, ApiError) for outcome in outcomes) == [False, True, True]
    assert pool.hosts[0].served.count("vm.shutdown") == 1
    assert leftovers(pool) == {}


async def test_a_call_that_waits_for_a_lock_can_be_cancelled(pool: Pool, client: Client) -> None:
    vm = await running_vm(pool, client)
    gate = pool.hosts[0].hold("vm.pause")
    pausing = client.begin("VM.pause", vm)
    await gate.reached.wait()
    task = await client.call("Async.VM.clean_shutdown", vm)
    await client.call("task.cancel", task)
    await pool.until(lambda: pool.row("task", task)["status"] == "cancelled")
    gate.open()
    await pausing
    assert leftovers(pool) == {}


MOMENTS = range(1, 140)
"""When a call is cancelled: first after so many turns of the event loop, then later and later, until it has ended."""


async def moment(number: int) -> None:
    for _ in range(min(number, 60)):
        await asyncio.sleep(0)
    if number > 60:
        await asyncio.sleep(0.0005 * 1.15 ** (number - 60))


def rows_agree_with_hosts(pool: Pool) -> bool:
    """Whether every VM is where its row says."""
    vms = [row for row in pool.store.rows("VM").values() if not row["is_control_domain"]]
    shown = {row["uuid"] for row in vms if row["power_state"] == "Running"}
    return shown == {name for host in pool.hosts for name in host.vms}


async def cancelled_after(pool: Pool, client: Client, steps: int, method: str, *params: Any) -> str:
    """Begins the call asynchronously and cancels it at that moment."""
    task = str(await client.call(f"Async.{method}", *params))
    await moment(steps)
    if pool.row("task", task)["status"] == "pending":
        with suppress(ApiError):  # it has just ended
            await client.call("task.cancel", task)
    await pool.until(lambda: pool.row("task", task)["status"] != "pending")
    await pool.idle()
    assert pool.row("task", task)["error_info"] == []
    return str(pool.row("task", task)["status"])


async def test_a_start_cancelled_at_any_moment_ends_whole_or_not_at_all(pool: Pool, client: Client) -> None:
    sr, network = pool.ref("SR", "storage"), pool.ref("network", "network")
    seen = set()
    for steps in MOMENTS:
        vm = await pool.vm(client, f"vm{steps}")
        await client.call("VBD.create", records.vbd(vm, await client.call("VDI.create", records.vdi(sr))))
        await client.call("VIF.create", records.vif(vm, network))
        status = await cancelled_after(pool, client, steps, "VM.start", vm, False, False)
        seen.add(status)
        await pool.until(partial(rows_agree_with_hosts, pool))
        assert pool.row("VM", vm)["power_state"] == ("Running" if status == "success" else "Halted")
        assert leftovers(pool) == {}, f"cancelled after {steps} steps"
        if status == "success":
            break
    assert seen == {"success", "cancelled"}


async def test_a_clone_with_disks_cancelled_at_any_moment_leaves_no_disk(pool: Pool, client: Client) -> None:
    sr = pool.ref("SR", "storage")
    vm = await pool.vm(client)
    for _ in range(2):
        await client.call("VBD.create", records.vbd(vm, await client.call("VDI.create", records.vdi(sr))))
    seen = set()
    for steps in MOMENTS:
        before = set(pool.store.rows("VM"))
        status = await cancelled_after(pool, client, steps, "VM.clone", vm, f"clone{steps}")
        seen.add(status)
        assert leftovers(pool) == {}, f"cancelled after {steps} steps"
        made = set(pool.store.rows("VM")) - before
        assert len(made) == (status == "success")
        disks = {pool.row("VBD", vbd)["VDI"] for name in pool.store.rows("VM") for vbd in pool.row("VM", name)["VBDs"]}
        assert disks == set(pool.store.rows("VDI"))
        if status == "success":
            break
    assert seen == {"success", "cancelled"}


async def test_a_caller_who_goes_away_at_any_moment_leaves_nothing(pool: Pool, client: Client) -> None:
    for steps in MOMENTS:
        vm = await pool.vm(client, f"vm{steps}")
        call = client.begin("VM.start", vm, False, False)
        await moment(steps)
        ended = call.done()
        call.cancel()
        await asyncio.wait([call])
        await pool.idle()
        assert leftovers(pool) == {}, f"gone after {steps} steps"
        if ended:
            break


async def test_a_lock_whose_commit_got_no_answer_is_given_back(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database commits, its answer is lost: the caller must not leave the lock it does not know of."""
    vm = await pool.vm(client)
    transact = pool.api.database.transact
    lost: list[int] = []

    async def deaf(changes: Any, given: Any = ()) -> int:
        generation = await transact(changes, given)
        if not lost and any(change.cls == "host" for change in changes):
            lost.append(generation)
            raise db_gone()
        return generation

    monkeypatch.setattr(pool.api.database, "transact", deaf)
    assert (await client.refusal("VM.start", vm, False, False))[0] == "INTERNAL_ERROR"
    assert lost
    assert leftovers(pool) == {}


def db_gone() -> ApiError:
    return DeadlineExceeded(db.TRANSACT.key)


async def test_an_outcome_is_written_once_although_its_answer_was_lost(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await pool.vm(client)
    transact = pool.api.database.transact
    lost: list[int] = []

    async def deaf(changes: Any, given: Any = ()) -> int:
        generation = await transact(changes, given)
        if not lost and any(isinstance(change, Create) and change.cls == "console" for change in changes):
            lost.append(generation)
            raise db_gone()
        return generation

    monkeypatch.setattr(pool.api.database, "transact", deaf)
    await client.call("VM.start", vm, False, False)
    assert lost
    assert len(pool.row("VM", vm)["consoles"]) == 1
    assert leftovers(pool) == {}


async def test_a_row_that_goes_away_meanwhile_does_not_keep_the_outcome_from_being_written(
    pool: Pool, client: Client
) -> None:
    vm = await pool.vm(client)
    vif = await client.call("VIF.create", records.vif(vm, pool.ref("network", "network")))
    gates = [host.after("vm.start") for host in pool.hosts]
    starting = client.begin("VM.start", vm, False, False)
    await asyncio.wait([asyncio.ensure_future(gate.reached.wait()) for gate in gates], return_when="FIRST_COMPLETED")
    await pool.write(Delete(cls="VIF", ref=vif))
    for gate in gates:
        gate.open()
    await starting
    assert pool.row("VM", vm)["power_state"] == "Running"
    assert leftovers(pool) == {}


async def test_a_body_that_fails_unexpectedly_gives_back_its_lock(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("oops")

    vm = await pool.vm(client)
    monkeypatch.setattr(vm_lifecycle, "vm_spec", broken)
    assert await client.refusal("VM.start", vm, False, False) == ["INTERNAL_ERROR", "ZeroDivisionError: oops"]
    assert leftovers(pool) == {}


async def test_locks_and_tasks_that_nobody_works_for_any_more_are_swept_away(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await pool.write(
        db.MapPut(cls="VM", ref=vm, field="current_operations", key="OpaqueRef:lost", value="start"),
        db.Update(cls="VM", ref=vm, fields={"scheduled_to_be_resident_on": pool.host_ref(0)}),
    )
    assert leftovers(pool)
    sweeping = asyncio.create_task(sweep.run(pool.api, every=0.01))
    try:
        await pool.until(lambda: leftovers(pool) == {})
    finally:
        sweeping.cancel()
