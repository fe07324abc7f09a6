"""Calls beside the main job: both protocols, TLS, asynchronous calls, tasks, events and messages between sessions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import XenAPI

from tests.e2e import client
from tests.support.pool import PoolUnderTest

pytestmark = pytest.mark.pool


# ---- asynchronous calls and tasks


def test_an_asynchronous_start_is_a_task_that_succeeds(session: Any) -> None:
    api = session.xenapi
    with client.temporary_vm(api, "async") as vm:
        task = client.finished(api, api.Async.VM.start(vm, True, False))
        assert task["error_info"] == []
        assert (task["status"], float(task["progress"])) == ("success", 1.0)
        assert task["name_label"] == "Async.VM.start"
        assert task["result"] == "<value></value>"
        assert task["finished"].value >= task["created"].value
        assert api.VM.get_power_state(vm) == "Paused"
        assert api.VM.get_current_operations(vm) == {}


def test_the_result_of_an_asynchronous_call_is_in_its_task(session: Any) -> None:
    api = session.xenapi
    template = api.VM.get_by_name_label("Tiny guest")[0]
    task = client.finished(api, api.Async.VM.clone(template, "from a task"))
    vm = api.VM.get_by_name_label("from a task")[0]
    api.VM.destroy(vm)
    assert task["result"] == f"<value>{vm}</value>"


def test_an_asynchronous_call_that_fails_says_why_in_its_task(session: Any) -> None:
    api = session.xenapi
    with client.temporary_vm(api, "halted") as vm:
        task = client.finished(api, api.Async.VM.pause(vm))
        assert task["status"] == "failure"
        assert task["error_info"] == ["VM_BAD_POWER_STATE", vm, "running", "halted"]
        assert task["result"] == ""


def test_wrong_arguments_of_an_asynchronous_call_are_told_at_once(session: Any) -> None:
    with pytest.raises(XenAPI.Failure) as caught:
        session.xenapi.Async.VM.start("too few")
    assert caught.value.details[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH"


def test_a_cancelled_shutdown_leaves_the_vm_running(session: Any) -> None:
    """The guest does not follow: the simulated one by its settings, the real one because it still boots."""
    api = session.xenapi
    with client.temporary_vm(api, "stubborn") as vm:
        api.VM.add_to_other_config(vm, "sim:ignores-shutdown", "true")
        api.VM.start(vm, False, False)
        task = api.Async.VM.clean_shutdown(vm)
        events = client.Events(api, f"vm/{vm}", from_the_beginning=True)
        begun = {task: "clean_shutdown"}
        events.until(lambda: api.VM.get_current_operations(vm) == begun, "the operation's beginning")
        api.task.cancel(task)
        assert client.finished(api, task)["status"] == "cancelled"
        assert api.VM.get_current_operations(vm) == {}
        assert api.VM.get_power_state(vm) == "Running"


def test_a_client_drives_a_task_of_its_own(session: Any) -> None:
    api = session.xenapi
    task = api.task.create("mine", "made by a client")
    record = api.task.get_record(task)
    assert (record["name_label"], record["status"], record["type"]) == ("mine", "pending", "<none/>")
    api.task.set_progress(task, 0.5)
    assert float(api.task.get_progress(task)) == 0.5
    api.task.set_status(task, "success")
    assert api.task.get_status(task) == "success"
    api.task.destroy(task)
    with pytest.raises(XenAPI.Failure, match="HANDLE_INVALID"):
        api.task.get_record(task)


def test_a_synchronous_call_shows_as_a_task_while_it_runs(pool: PoolUnderTest, session: Any) -> None:
    api = session.xenapi
    with client.temporary_vm(api, "slow") as vm, client.logged_in(pool) as other, ThreadPoolExecutor(1) as threads:
        api.VM.add_to_other_config(vm, "sim:ignores-shutdown", "true")
        api.VM.start(vm, False, False)
        tasks = client.Events(api, "task")
        shutdown = threads.submit(other.xenapi.VM.clean_shutdown, vm)
        try:
            (task,) = tasks.next(30.0)
        finally:
            for ref in api.VM.get_current_operations(vm):
                api.task.cancel(ref)
        with pytest.raises(XenAPI.Failure) as caught:
            shutdown.result(30)
        assert caught.value.details == ["TASK_CANCELLED", task["ref"]]
        assert (task["operation"], task["class"]) == ("add", "task")
        assert (task["snapshot"]["name_label"], task["snapshot"]["status"]) == ("VM.clean_shutdown", "pending")
        assert task["ref"] not in api.task.get_all()


# ---- events


def test_a_session_sees_what_another_one_writes(pool: PoolUnderTest, session: Any) -> None:
    api = session.xenapi
    with client.logged_in(pool) as other:
        events = client.Events(api, "vm")
        vm = client.provisioned(other.xenapi, "seen")
        (added,) = _about(events, vm)
        assert added["operation"] == "add"
        assert added["class"] == "vm"
        assert added["snapshot"]["name_label"] == "seen"

        other.xenapi.VM.set_name_description(vm, "changed by somebody else")
        changed = _about(events, vm)[-1]
        assert changed["operation"] == "mod"
        assert changed["snapshot"] == other.xenapi.VM.get_record(vm)

        other.xenapi.VM.destroy(vm)
        gone = _about(events, vm)[-1]
        assert gone["operation"] == "del"
        assert "snapshot" not in gone


def test_a_waiting_session_is_woken_by_the_write_of_another(pool: PoolUnderTest, session: Any) -> None:
    api = session.xenapi
    with (
        client.temporary_vm(api, "watched") as vm,
        client.logged_in(pool) as other,
        ThreadPoolExecutor(1) as threads,
    ):
        events = client.Events(other.xenapi, f"vm/{vm}")
        waiting = threads.submit(events.next, 60.0)
        assert not waiting.done()
        api.VM.set_name_label(vm, "renamed")
        (event,) = waiting.result(timeout=20)
        assert event["snapshot"]["name_label"] == "renamed"


def test_a_session_that_ends_ends_its_wait_for_events(pool: PoolUnderTest, session: Any) -> None:
    call = client.JsonRpc(pool.url)
    other = call("session.login_with_password", "root", pool.password, "1.0", "tests")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(call.answer, "event.from", other, ["network"], _token_now(session.xenapi), 60.0)
        call("session.logout", other)
        answer = waiting.result(timeout=20)
    assert (answer["error"]["message"], answer["error"]["data"]) == ("SESSION_INVALID", [other])


def _token_now(api: Any) -> str:
    batch = getattr(api.event, "from")(["network"], "", 0.0)
    return str(batch["token"])


def _about(events: client.Events, ref: str) -> list[dict[str, Any]]:
    """The next events of that object; others pass."""
    for _ in range(20):
        if found := [event for event in events.next(10.0) if event["ref"] == ref]:
            return found
    raise AssertionError(f"no event of {ref}")


@pytest.mark.parametrize("host", ["host1", "host2"])
def test_events_come_through_a_hosts_unix_socket_too(pool: PoolUnderTest, session: Any, host: str) -> None:
    with client.logged_in_on_the_host(pool, host) as local, client.temporary_vm(session.xenapi, "local") as vm:
        there = client.Events(local.xenapi, f"vm/{vm}", from_the_beginning=True)
        here = client.Events(session.xenapi, f"vm/{vm}", from_the_beginning=True)
        assert there.next(5.0) == here.next(5.0)
        session.xenapi.VM.set_name_label(vm, "renamed")
        (event,) = there.next(10.0)
        assert (event["operation"], event["snapshot"]) == ("mod", session.xenapi.VM.get_record(vm))


# ---- messages


def test_what_happens_to_a_vm_arrives_as_messages(session: Any) -> None:
    api = session.xenapi
    with client.temporary_vm(api, "talks") as vm:
        uuid = api.VM.get_uuid(vm)
        since = api.host.get_servertime(api.host.get_all()[0])
        since.value = "19700101T00:00:00Z"
        events = client.Events(api, "message")
        api.VM.start(vm, False, False)
        host = api.host.get_record(api.VM.get_resident_on(vm))
        started = _message(events, uuid, "VM_STARTED")
        assert (started["cls"], int(started["priority"])) == ("VM", 5)
        assert (
            started["body"] == f"VM 'talks' (uuid: {uuid}) started on host: {host['name_label']} (uuid: {host['uuid']})"
        )
        api.VM.hard_shutdown(vm)
        assert _message(events, uuid, "VM_SHUTDOWN")["body"] == f"VM 'talks' (uuid: {uuid}) shutdown forcibly"

        kept = api.message.get("VM", uuid, since)
        assert sorted(row["name"] for row in kept.values()) == ["VM_SHUTDOWN", "VM_STARTED"]
        assert api.message.get_by_uuid(started["uuid"]) in kept
        api.message.destroy_many(list(kept))
        assert api.message.get("VM", uuid, since) == {}


def _message(events: client.Events, uuid: str, name: str) -> dict[str, Any]:
    for _ in range(20):
        for event in events.next(10.0):
            row: dict[str, Any] = event["snapshot"]
            if (row["obj_uuid"], row["name"]) == (uuid, name):
                return row
    raise AssertionError(f"no message {name}")


# ---- protocols


def test_the_same_calls_over_tls(pool: PoolUnderTest) -> None:
    session = XenAPI.Session(pool.url.replace("http:", "https:"), ignore_ssl=True)
    session.login_with_password("root", pool.password, "1.0", "tests")
    assert len(session.xenapi.host.get_all()) == 3
    session.xenapi.session.logout()


def test_a_vm_runs_by_json_rpc(pool: PoolUnderTest) -> None:
    call = client.JsonRpc(pool.url)
    session = call("session.login_with_password", "root", pool.password, "1.0", "tests")
    template = call("VM.get_by_name_label", session, "Tiny guest")[0]
    vm = call("VM.clone", session, template, "by json")
    assert call("VM.provision", session, vm) == ""
    assert call.answer("VM.start", session, vm, False, False) == {"jsonrpc": "2.0", "result": "", "id": 7}
    record = call("VM.get_record", session, vm)
    assert (record["power_state"], record["is_a_template"]) == ("Running", False)
    assert isinstance(record["memory_static_max"], int)
    assert call.answer("VM.start", session, vm, False, False) == {
        "jsonrpc": "2.0",
        "error": {"code": 1, "message": "VM_BAD_POWER_STATE", "data": [vm, "halted", "running"]},
        "id": 7,
    }
    batch = call("event.from", session, [f"vm/{vm}"], "", 5.0)
    assert [event["snapshot"]["power_state"] for event in batch["events"]] == ["Running"]
    call("VM.hard_shutdown", session, vm)
    call("VM.destroy", session, vm)
    call("session.logout", session)


def test_a_wrong_password_is_refused_in_both_protocols(pool: PoolUnderTest) -> None:
    with pytest.raises(XenAPI.Failure) as caught:
        XenAPI.Session(pool.url).login_with_password("root", "wrong", "1.0", "tests")
    assert caught.value.details[:2] == ["SESSION_AUTHENTICATION_FAILED", "root"]
    answer = client.JsonRpc(pool.url).answer("session.login_with_password", "root", "wrong", "1.0", "tests")
    assert answer["error"]["message"] == "SESSION_AUTHENTICATION_FAILED"
    assert answer["error"]["data"][0] == "root"
