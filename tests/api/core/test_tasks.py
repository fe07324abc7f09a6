"""Tasks: what clients see of calls that go on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.api import clock, tasks
from services.api.wire import result
from shared.contracts.db import Create
from shared.contracts.task import PROGRESS, Progress
from shared.store import NULL
from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool, error_of


async def ended(pool: Pool, task: str) -> Any:
    await pool.until(lambda: pool.row("task", task)["status"] != "pending")
    await pool.idle()
    return pool.row("task", task)


async def test_a_synchronous_call_shows_as_a_task_while_it_runs_and_is_gone_after(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gate = pool.hosts[0].hold("vm.start")
    starting = client.begin("VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    [(ref, row)] = pool.store.rows("task").items()
    assert (row["name_label"], row["status"], row["progress"]) == ("VM.start_on", "pending", 0.0)
    assert row["finished"] == "19700101T00:00:00Z"
    assert row["resident_on"] == pool.host_ref(0)
    assert ref in await client.call("session.get_tasks", client.session)
    gate.open()
    await starting
    assert pool.store.rows("task") == {}


async def test_getters_and_calls_of_class_task_and_event_make_no_task(pool: Pool, client: Client) -> None:
    seen: list[str] = []
    pool.api.replica.watch(lambda touched, _: seen.extend(item.ref for item in touched if item.cls == "task"))
    await client.call("VM.get_all")
    await client.call("VM.set_name_label", await pool.vm(client), "x")
    seen.clear()
    await client.call("event.inject", "pool", next(iter(pool.store.rows("pool"))))
    await client.call("VM.set_name_label", pool.ref("VM", "x"), "y")
    assert seen == []


async def test_the_result_of_an_asynchronous_call_is_xml_with_its_value_tag(pool: Pool, client: Client) -> None:
    task = await client.call("Async.VM.clone", pool.ref("VM", "Tiny guest"), "copy")
    row = await ended(pool, task)
    assert row["status"] == "success"
    assert row["result"] == f"<value>{pool.ref('VM', 'copy')}</value>"
    assert row["progress"] == 1.0
    assert row["finished"] != "19700101T00:00:00Z"
    assert row["name_label"] == "Async.VM.clone"


async def test_the_result_of_a_call_without_result_is_an_empty_value(pool: Pool, client: Client) -> None:
    task = await client.call("Async.VM.start", await pool.vm(client), False, False)
    row = await ended(pool, task)
    assert (row["status"], row["result"], row["error_info"]) == ("success", "<value></value>", [])


async def test_a_set_as_result(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    row = await ended(pool, await client.call("Async.VM.get_possible_hosts", vm))
    assert row["status"] == "success"
    assert row["result"].startswith("<value><array><data><value>")


async def test_a_failure_tells_code_and_parameters(pool: Pool, client: Client) -> None:
    row = await ended(pool, await client.call("Async.VM.start", "OpaqueRef:x", False, False))
    assert (row["status"], row["error_info"]) == ("failure", ["HANDLE_INVALID", "VM", "OpaqueRef:x"])
    assert row["result"] == ""


async def test_errors_before_the_work_are_the_callers_not_the_tasks(pool: Pool, client: Client) -> None:
    assert (await client.refusal("Async.VM.start", "x"))[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH"
    assert (await client.refusal("Async.VM.start", "x", "y", "z"))[0] == "INTERNAL_ERROR"
    assert (await error_of(client.raw("Async.VM.start", "bad", "x", True, True)))[0] == "SESSION_INVALID"
    assert pool.store.rows("task") == {}


async def test_a_cancelled_task_is_cancelled_without_error_info(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gate = pool.hosts[0].hold("vm.start")
    task = await client.call("Async.VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    assert await client.call("task.get_allowed_operations", task) == ["cancel"]
    await client.call("task.cancel", task)
    row = await ended(pool, task)
    assert (row["status"], row["error_info"], row["allowed_operations"]) == ("cancelled", [], [])
    assert list(row["current_operations"].values()) == ["cancel"]
    assert gate.cancelled.is_set()
    assert leftovers(pool) == {}
    await client.call("task.cancel", task)
    assert pool.row("task", task)["status"] == "cancelled"


async def test_a_synchronous_call_that_is_cancelled_tells_its_caller(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gate = pool.hosts[0].hold("vm.start")
    starting = client.begin("VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    [task] = pool.store.rows("task")
    await client.call("task.cancel", task)
    assert await error_of(starting) == ["TASK_CANCELLED", task]
    assert pool.store.rows("task") == {}
    assert leftovers(pool) == {}


async def test_a_task_destroyed_while_it_runs_goes_when_it_ends(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gate = pool.hosts[0].hold("vm.start")
    task = await client.call("Async.VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    await client.call("task.destroy", task)
    assert pool.row("task", task)["current_operations"] == {"task": "destroy"}
    assert await client.refusal("task.destroy", task) == [
        "MAP_DUPLICATE_KEY",
        "task",
        "current_operations",
        task,
        "task",
    ]
    gate.open()
    await pool.until(lambda: pool.row("task", task) is None)
    await pool.idle()
    assert pool.row("VM", vm)["power_state"] == "Running"
    assert leftovers(pool) == {}


async def test_a_finished_task_is_destroyed_at_once(pool: Pool, client: Client) -> None:
    task = await client.call("Async.VM.clone", pool.ref("VM", "Tiny guest"), "copy")
    await ended(pool, task)
    await client.call("task.destroy", task)
    assert pool.row("task", task) is None


async def test_clients_drive_their_own_tasks(pool: Pool, client: Client) -> None:
    task = await client.call("task.create", "mine", "of mine")
    await client.call("task.set_progress", task, 0.5)
    await client.call("task.set_status", task, "success")
    await client.call("task.set_result", task, "anything")
    await client.call("task.add_to_other_config", task, "k", "v")
    record = await client.call("task.get_record", task)
    assert (record["progress"], record["status"], record["result"]) == (0.5, "success", "anything")
    assert record["finished"].startswith("19700101")
    assert record["other_config"] == {"k": "v"}


async def test_progress_on_the_bus_shows_in_the_task(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gate = pool.hosts[0].hold("vm.start")
    task = await client.call("Async.VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    for value in (0.25, 7.0, 0.5):
        await pool.hosts[0].bus.publish(PROGRESS, Progress(task=task, progress=value), task=task)
    await pool.hosts[0].bus.publish(PROGRESS, Progress(task="OpaqueRef:x", progress=0.1), task="OpaqueRef:x")
    await pool.until(lambda: pool.row("task", task)["progress"] == 0.5)
    gate.open()
    assert (await ended(pool, task))["progress"] == 1.0


def task_row(ref: str, **fields: Any) -> Create:
    common = {"name_label": "t", "created": clock.now(), "finished": clock.EPOCH, "session": NULL, "resident_on": NULL}
    return Create(cls="task", ref=ref, fields={**common, "status": "pending", "type": "<none/>", **fields})


async def test_old_tasks_are_collected(pool: Pool, client: Client) -> None:
    now = time.time()
    done, fresh = clock.stamp(now - tasks.COMPLETED_KEPT - 60), clock.stamp(now - 60)
    day = clock.stamp(now - tasks.PENDING_KEPT - 60)
    await pool.write(
        task_row("old", status="success", finished=done),
        task_row("new", status="success", finished=fresh),
        task_row("stuck", created=day, progress=0.5),
        task_row("slow", created=day, progress=0.6),
        task_row("flagged", status="failure", finished=fresh, current_operations={"flagged": "destroy"}),
    )
    assert set(tasks.collectable(pool.api, now, {"stuck": 0.5, "slow": 0.5})) == {"old", "stuck", "flagged"}


async def test_above_two_hundred_the_oldest_completed_go_first(pool: Pool, client: Client) -> None:
    now = time.time()
    rows = [task_row(f"p{number}") for number in range(150)]
    rows += [task_row(f"c{n}", status="success", finished=clock.stamp(now - n)) for n in range(60)]
    await pool.write(*rows)
    assert set(tasks.collectable(pool.api, now, {})) == {f"c{number}" for number in range(50, 60)}


@pytest.mark.parametrize("label", ["web.example.com", "Import of a.b"])
async def test_tasks_of_clients_outlive_the_api_process(pool: Pool, client: Client, label: str) -> None:
    task = await client.call("task.create", label, "")
    await pool.kill_api()
    await pool.start_api()
    assert pool.row("task", task)["status"] == "pending"


async def test_an_outcome_that_cannot_be_encoded_fails_the_task(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> str:
        raise TypeError("not a value")

    monkeypatch.setattr(result, "to_text", broken)
    task = await client.call("Async.VM.start", await pool.vm(client), False, False)
    row = await ended(pool, task)
    assert (row["status"], row["error_info"]) == ("failure", ["INTERNAL_ERROR", "TypeError: not a value"])
