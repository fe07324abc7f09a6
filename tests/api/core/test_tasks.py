"""Tasks: what clients see of calls that go on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.api import clock, tasks
from services.api.wire import result, xmlrpc
from shared.contracts.db import Create
from shared.contracts.task import PROGRESS, Progress
from shared.datamodel.types import BOOL, FLOAT, INT, STRING, VOID, MapType, RecordType, RefType, SetType, Type
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


# ---- what a caller says about tasks: the headers `subtask-of`, `task-id`, `x-http-other-config-...`


async def test_a_task_is_part_of_the_one_its_caller_names(pool: Pool, client: Client) -> None:
    parent = await client.call("task.create", "parent", "")
    inner = client.sending(subtask_of=parent)
    child = await inner.call("Async.VM.clone", pool.ref("VM", "Tiny guest"), "copy")
    made = await inner.call("task.create", "child", "")
    await ended(pool, child)
    assert [pool.row("task", task)["subtask_of"] for task in (child, made)] == [parent, parent]
    assert set(await client.call("task.get_subtasks", parent)) == {child, made}


@pytest.mark.parametrize(
    "parent", ["DummyRef:|5f1d4b8e-0000-4000-8000-000000000000|VM.start", "OpaqueRef:unknown", NULL, ""]
)
async def test_what_nobody_can_see_is_no_parent(pool: Pool, client: Client, parent: str) -> None:
    inner = client.sending(subtask_of=parent)
    task = await inner.call("Async.VM.clone", pool.ref("VM", "Tiny guest"), "copy")
    assert (await ended(pool, task))["subtask_of"] == NULL
    assert pool.row("task", await inner.call("task.create", "t", ""))["subtask_of"] == NULL


async def test_headers_become_other_config_of_the_calls_task(pool: Pool, client: Client) -> None:
    inner = client.sending(other_config={"origin": "tests", "dbg": "x"})
    task = await inner.call("Async.VM.clone", pool.ref("VM", "Tiny guest"), "copy")
    assert (await ended(pool, task))["other_config"] == {"http:origin": "tests", "http:dbg": "x"}


async def test_a_call_runs_inside_the_task_it_names_and_leaves_it_pending(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    task = await client.call("task.create", "mine", "")
    gate = pool.hosts[0].hold("vm.start")
    starting = client.sending(task=task).begin("VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    assert list(pool.store.rows("task")) == [task]
    assert pool.row("VM", vm)["current_operations"] == {task: "start_on"}
    gate.open()
    await starting
    await client.sending(task=task).call("VM.hard_shutdown", vm)
    row = pool.row("task", task)
    assert (row["status"], row["progress"], row["result"], row["finished"]) == ("pending", 0.0, "", clock.EPOCH)
    assert list(pool.store.rows("task")) == [task]
    await client.call("task.destroy", task)


async def test_an_asynchronous_call_inside_a_task_is_that_task(pool: Pool, client: Client) -> None:
    task = await client.call("task.create", "mine", "")
    inner = client.sending(task=task)
    assert await inner.call("Async.VM.clone", pool.ref("VM", "Tiny guest"), "copy") == task
    await pool.until(lambda: pool.store.by_name_label("VM", "copy"))
    await pool.idle()
    assert pool.row("task", task)["status"] == "pending"


async def test_cancelling_a_task_stops_every_call_that_runs_inside_it(pool: Pool, client: Client) -> None:
    vms = [await pool.vm(client, f"vm{number}") for number in range(2)]
    task = await client.call("task.create", "mine", "")
    gates = [host.hold("vm.start") for host in pool.hosts]
    inner = client.sending(task=task)
    starting = [inner.begin("VM.start_on", vm, pool.host_ref(n), False, False) for n, vm in enumerate(vms)]
    for gate in gates:
        await gate.reached.wait()
    await client.call("task.cancel", task)
    for one in starting:
        assert await error_of(one) == ["TASK_CANCELLED", task]
    await client.call("task.set_status", task, "cancelled")
    assert leftovers(pool) == {}


async def test_calls_do_not_run_inside_tasks_that_have_ended_or_are_not_there(pool: Pool, client: Client) -> None:
    done = await client.call("task.create", "done", "")
    await client.call("task.set_status", done, "success")
    for task in (done, "OpaqueRef:unknown", "DummyRef:|x|VM.start"):
        own = await client.sending(task=task).call("Async.VM.clone", pool.ref("VM", "Tiny guest"), "copy")
        assert own != task
        assert (await ended(pool, own))["status"] == "success"


async def test_nobody_runs_inside_another_users_task(pool: Pool, client: Client) -> None:
    task = await client.call("task.create", "of root", "")
    fields = {"auth_user_sid": "S-1", "auth_user_name": "operator", "last_active": clock.now(), "pool": False}
    fields |= {"is_local_superuser": False, "rbac_permissions": ["vm.clone", "task.create"]}
    await pool.write(Create(cls="session", ref="operator", fields=fields))
    operator = client.sending(task=task)
    operator.session = "operator"
    own = await operator.call("Async.VM.clone", pool.ref("VM", "Tiny guest"), "copy")
    assert own != task
    assert (await ended(pool, own))["status"] == "success"


async def test_calls_between_hosts_have_a_subtask_of_the_one_they_name(pool: Pool, client: Client) -> None:
    task = await client.call("task.create", "mine", "")
    inner = client.sending(task=task)
    own = await inner.call("InternalAsync.VM.clone", pool.ref("VM", "Tiny guest"), "copy")
    row = await ended(pool, own)
    assert own != task
    assert (row["name_label"], row["status"], row["subtask_of"]) == ("InternalAsync.VM.clone", "success", task)
    assert row["result"] == f"<value>{pool.ref('VM', 'copy')}</value>"
    assert pool.row("task", task)["status"] == "pending"


async def test_messages_that_are_made_of_others_show_them_as_subtasks(pool: Pool, client: Client) -> None:
    appliance = await client.call("VM_appliance.create", {"name_label": "a", "name_description": ""})
    vm = await pool.vm(client)
    await client.call("VM.set_appliance", vm, appliance)
    gate = pool.hosts[0].hold("vm.start"), pool.hosts[1].hold("vm.start")
    task = await client.sending(other_config={"origin": "tests"}).call("Async.VM_appliance.start", appliance, False)
    await pool.until(lambda: pool.row("VM", vm)["current_operations"])
    [inner] = pool.row("VM", vm)["current_operations"]
    row = pool.row("task", inner)
    assert (row["subtask_of"], row["name_label"], row["other_config"]) == (task, "VM.start", {})
    assert pool.row("task", task)["subtasks"] == [inner]
    for one in gate:
        one.open()
    assert (await ended(pool, task))["subtasks"] == []


# ---- calls without a task of the database


async def test_an_asynchronous_cancel_has_a_task_that_nobody_can_look_at(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gate = pool.hosts[0].hold("vm.start")
    task = await client.call("Async.VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    cancelling = await client.call("Async.task.cancel", task)
    assert cancelling.startswith("DummyRef:|")
    assert await client.refusal("task.get_record", cancelling) == ["HANDLE_INVALID", "task", cancelling]
    row = await ended(pool, task)
    assert (row["status"], row["current_operations"]) == ("cancelled", {cancelling: "cancel"})
    assert list(pool.store.rows("task")) == [task]


# ---- how a task ends


async def test_a_task_ends_in_one_commit_so_who_sees_its_status_sees_all(pool: Pool, client: Client) -> None:
    seen: list[tuple[str, ...]] = []

    def watch(touched: Any, _: Any) -> None:
        for item in touched:
            row = item.row.fields
            if item.cls == "task" and row["status"] != "pending":
                allowed = ",".join(row["allowed_operations"])
                seen.append((row["status"], row["result"], str(row["progress"]), allowed, row["finished"][:2]))

    pool.api.replica.watch(watch)
    task = await client.call("Async.VM.clone", pool.ref("VM", "Tiny guest"), "copy")
    await ended(pool, task)
    assert seen == [("success", f"<value>{pool.ref('VM', 'copy')}</value>", "1.0", "", "20")]


async def test_a_task_whose_client_has_ended_it_is_not_changed_by_the_call(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gate = pool.hosts[0].hold("vm.start")
    task = await client.call("Async.VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    await client.call("task.set_status", task, "failure")
    await client.call("task.set_error_info", task, ["MINE"])
    gate.open()
    await pool.until(lambda: pool.row("VM", vm)["power_state"] == "Running")
    await pool.idle()
    row = pool.row("task", task)
    assert (row["status"], row["error_info"], row["result"], row["finished"]) == ("failure", ["MINE"], "", clock.EPOCH)


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        (VOID, "", "<value></value>"),
        (STRING, "<&>", "<value>&lt;&amp;&gt;</value>"),
        (INT, -3, "<value>-3</value>"),
        (BOOL, True, "<value><boolean>1</boolean></value>"),
        (FLOAT, 0.5, "<value><double>0.5</double></value>"),
        (RefType("VM"), "OpaqueRef:x", "<value>OpaqueRef:x</value>"),
        (SetType(STRING), [], "<value><array><data></data></array></value>"),
        (SetType(INT), [1, 2], "<value><array><data><value>1</value><value>2</value></data></array></value>"),
        (
            MapType(RefType("VM"), SetType(STRING)),
            {"OpaqueRef:x": ["a"]},
            "<value><struct><member><name>OpaqueRef:x</name>"
            "<value><array><data><value>a</value></data></array></value></member></struct></value>",
        ),
    ],
)
def test_results_are_xml_of_any_type(type_: Type, value: Any, text: str) -> None:
    assert result.to_text(type_, value) == text
    assert result.from_text(type_, text) == value


async def test_a_record_as_result_has_its_members(pool: Pool, client: Client) -> None:
    vm = pool.ref("VM", "Tiny guest")
    told = xmlrpc.parse_value(result.to_text(RecordType("VM"), pool.row("VM", vm)))
    assert set(told) == set(await client.call("VM.get_record", vm))
    assert told["name_label"] == "Tiny guest"


async def test_client_made_tasks_cannot_be_cancelled_but_the_wish_is_noted(pool: Pool, client: Client) -> None:
    task = await client.call("task.create", "mine", "")
    assert await client.call("task.get_allowed_operations", task) == []
    await client.call("task.cancel", task)
    row = pool.row("task", task)
    assert (row["status"], list(row["current_operations"].values())) == ("pending", ["cancel"])


@pytest.mark.parametrize(
    ("setter", "values"),
    [
        ("status", ["cancelling", "pending", "failure", "cancelled", "success"]),
        ("progress", [0.5, 1.0, -1.0, 17.0]),
        ("result", ["x", "", "<value>"]),
        ("error_info", [["A"], [], ["A", "b"]]),
    ],
)
async def test_clients_set_any_value_and_nothing_is_stamped(
    pool: Pool, client: Client, setter: str, values: list[Any]
) -> None:
    task = await client.call("task.create", "mine", "")
    for value in values:
        await client.call(f"task.set_{setter}", task, value)
        assert pool.row("task", task)[setter] == value
    assert pool.row("task", task)["finished"] == clock.EPOCH


async def test_a_task_that_was_to_be_destroyed_goes_once_its_client_has_ended_it(pool: Pool, client: Client) -> None:
    task = await client.call("task.create", "mine", "")
    await client.call("task.destroy", task)
    assert tasks.collectable(pool.api, time.time(), {}) == []
    await client.call("task.set_status", task, "success")
    assert tasks.collectable(pool.api, time.time(), {}) == [task]
