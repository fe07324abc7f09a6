"""Which error a client sees: the order of the checks before a message is carried out."""

from __future__ import annotations

from typing import Any

import pytest

from services.api import operations
from services.api.operation import OPERATIONS
from services.api.unwritten import CHECKED
from shared.contracts.api import XENAPI, XenApiCall
from shared.contracts.db import Create
from shared.datamodel import model
from shared.store import NULL
from tests.api.harness import Client, Pool, error_of


async def raw_error(client: Client, method: str, *params: Any) -> list[str]:
    return await error_of(client.raw(method, *params))


@pytest.mark.parametrize("name", ["Frob.nicate", "VM.frobnicate", "vm.start", "", "VM", "unknown-message-x"])
async def test_an_unknown_method_is_named(client: Client, name: str) -> None:
    assert await raw_error(client, name, client.session) == ["MESSAGE_METHOD_UNKNOWN", name]
    assert await raw_error(client, name) == ["MESSAGE_METHOD_UNKNOWN", name]


async def test_an_unknown_asynchronous_method_is_named_without_its_prefix(client: Client) -> None:
    assert await raw_error(client, "Async.Frob.nicate", client.session) == ["MESSAGE_METHOD_UNKNOWN", "Frob.nicate"]


async def test_the_first_parameter_of_an_unknown_method_is_a_session(client: Client) -> None:
    assert await raw_error(client, "Frob.nicate", "nonsense") == ["SESSION_INVALID", "nonsense"]


async def test_counts_of_parameters_leave_out_the_session_and_defaults(client: Client) -> None:
    session = client.session
    wrong = "MESSAGE_PARAMETER_COUNT_MISMATCH"
    assert await raw_error(client, "VM.get_all", session, "x") == [wrong, "VM.get_all", "0", "1"]
    assert await raw_error(client, "VM.start", session, "x") == [wrong, "VM.start", "3", "1"]
    assert await raw_error(client, "VM.get_all") == [wrong, "VM.get_all", "0", "-1"]
    assert await raw_error(client, "Async.VM.start", session) == [wrong, "VM.start", "3", "0"]
    assert await raw_error(client, "VM_start", session) == [wrong, "VM.start", "3", "0"]
    assert await raw_error(client, "host.disable", session) == [wrong, "host.disable", "1", "0"]
    assert await raw_error(client, "session.login_with_password", "root") == [
        wrong,
        "session.login_with_password",
        "2",
        "1",
    ]


async def test_trailing_defaults_may_be_left_out_and_what_is_too_much_is_ignored_there(
    pool: Pool, client: Client
) -> None:
    host = pool.host_ref(1)
    for extra in ([], [True], [True, "more", "yet more"]):
        await client.raw("host.disable", client.session, host, *extra)
        assert not pool.row("host", host)["enabled"]
        await client.call("host.enable", host)


async def test_arity_comes_before_the_session_and_types_before_it_too(client: Client) -> None:
    assert (await raw_error(client, "VM.start", "nonsense"))[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH"
    assert (await raw_error(client, "VM.start", "nonsense", "vm", "true", False))[0] == "INTERNAL_ERROR"
    assert await raw_error(client, "VM.start", "nonsense", "vm", True, False) == ["SESSION_INVALID", "nonsense"]


async def test_a_wrong_type_is_an_internal_error(client: Client) -> None:
    for params in (["vm", "true", False], [7, True, False], [None, True, False]):
        assert (await raw_error(client, "VM.start", client.session, *params))[0] == "INTERNAL_ERROR"
    assert (await client.refusal("VM.set_actions_after_crash", "vm", "explode"))[0] == "INTERNAL_ERROR"


async def test_a_removed_message_says_so_after_session_and_arity(client: Client) -> None:
    removed = next(m for m in model.messages.values() if m.removed and m.session and m.kind == "custom")
    params: list[Any] = [param.type.empty() for param in removed.params]
    assert await client.refusal(removed.wire_name, *params) == ["MESSAGE_REMOVED"]
    assert await raw_error(client, removed.wire_name, "nonsense", *params) == ["SESSION_INVALID", "nonsense"]
    assert (await client.refusal(removed.wire_name, *params, "extra"))[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH"


def unwritten() -> str:
    """A message about one VM that nobody has built yet."""
    for name, message in model.messages.items():
        about_a_vm = [str(param.type) for param in message.params] == ["VM ref"]
        for_clients = message.has_async and not message.removed and not message.pool_internal
        if about_a_vm and for_clients and name not in {**OPERATIONS, **CHECKED}:
            return name
    pytest.skip("everything is built")


async def test_what_is_not_written_yet_says_not_implemented(pool: Pool, client: Client) -> None:
    assert await client.refusal(unwritten(), await pool.vm(client)) == ["NOT_IMPLEMENTED", unwritten()]


async def test_an_asynchronous_call_of_what_is_not_written_fails_in_its_task(pool: Pool, client: Client) -> None:
    task = await client.call(f"Async.{unwritten()}", await pool.vm(client))
    await pool.until(lambda: pool.row("task", task)["status"] == "failure")
    assert pool.row("task", task)["error_info"] == ["NOT_IMPLEMENTED", unwritten()]


async def test_a_message_without_asynchronous_form_is_a_fault(client: Client) -> None:
    assert (await client.refusal("Async.VM.get_all"))[0] == "Fault"
    assert (await client.refusal("Async.session.logout"))[0] == "Fault"


async def test_list_methods_names_every_message_and_needs_no_session(client: Client) -> None:
    names = await client.raw("system.listMethods")
    assert set(names) == set(model.messages)
    assert not any(name.startswith("Async.") for name in names)


async def test_a_session_of_a_client_may_not_call_what_hosts_say_to_each_other(client: Client) -> None:
    message = next(m for m in model.messages.values() if m.pool_internal and m.session)
    params = [param.type.empty() for param in message.params]
    code, text = await client.refusal(message.wire_name, *params)
    assert code == "INTERNAL_ERROR"
    assert "non-pool (external) session" in text


# ---- members


async def test_a_member_sends_clients_to_the_coordinator(pool: Pool, client: Client) -> None:
    await pool.start_api(1)
    member = pool.client(1)
    address = pool.row("host", pool.host_ref(0))["address"]
    slave = ["HOST_IS_SLAVE", address]
    assert await raw_error(member, "session.login_with_password", "root", "wrong") == slave
    assert await raw_error(member, "VM.get_all", client.session) == slave
    assert await raw_error(member, "VM.get_all", "nonsense") == ["SESSION_INVALID", "nonsense"]
    assert await raw_error(member, "Frob.nicate") == ["MESSAGE_METHOD_UNKNOWN", "Frob.nicate"]


async def test_root_on_a_member_reaches_the_coordinator_over_the_bus(pool: Pool) -> None:
    await pool.start_api(1)
    member = pool.client(1, trusted=True)
    member.session = await member.raw("session.login_with_password", "root", "")
    assert set(await member.call("host.get_all")) == set(pool.store.rows("host"))
    vm = await member.call("VM.clone", pool.ref("VM", "Tiny guest"), "from afar")
    assert pool.row("VM", vm)["name_label"] == "from afar"
    assert (await member.refusal("VM.start", "OpaqueRef:x", False, False))[0] == "HANDLE_INVALID"
    task = await member.call("Async.VM.provision", vm)
    await pool.until(lambda: pool.row("task", task)["status"] == "success")


async def test_services_call_over_the_bus_with_json_values(pool: Pool, client: Client) -> None:
    bus = await pool.broker.connect("cli")
    ask = XenApiCall(method="VM.get_by_name_label", params=[client.session, "Tiny guest"])
    answer = await bus.call(XENAPI, ask, host=pool.hosts[0].uuid)
    assert (answer.value, answer.error) == ([pool.ref("VM", "Tiny guest")], [])
    wrong = await bus.call(XENAPI, XenApiCall(method="VM.get_all", params=["x"]), host=pool.hosts[0].uuid)
    assert wrong.error == ["SESSION_INVALID", "x"]
    await bus.close()


# ---- roles


async def limited(pool: Pool, *permissions: str) -> Client:
    """A session that is not root's."""
    client = pool.client()
    client.session = "OpaqueRef:limited"
    fields = {
        "this_host": pool.host_ref(0),
        "this_user": NULL,
        "last_active": "20990101T00:00:00Z",
        "auth_user_sid": "S-1",
        "auth_user_name": "someone",
        "rbac_permissions": list(permissions),
    }
    await pool.write(Create(cls="session", ref=client.session, fields=fields))
    return client


async def test_a_session_without_the_permission_is_denied(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    other = await limited(pool, "vm.get_all")
    assert vm in await other.call("VM.get_all")
    code, permission, text = await other.refusal("VM.start", vm, False, False)
    assert (code, permission) == ("RBAC_PERMISSION_DENIED", "vm.start")
    assert "pool-admin" in text


async def test_an_asynchronous_call_is_denied_in_its_task(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    other = await limited(pool)
    task = await other.call("Async.VM.start", vm, False, False)
    await pool.until(lambda: pool.row("task", task)["status"] == "failure")
    assert pool.row("task", task)["error_info"][:2] == ["RBAC_PERMISSION_DENIED", "vm.start"]
    assert pool.row("VM", vm)["power_state"] == "Halted"


async def test_another_users_task_cannot_be_cancelled(pool: Pool, client: Client) -> None:
    task = await client.call("task.create", "mine", "")
    other = await limited(pool, "task.cancel", "task.destroy")
    assert (await other.refusal("task.cancel", task))[:2] == ["RBAC_PERMISSION_DENIED", "task.destroy/any"]
    assert (await other.refusal("task.destroy", task))[:2] == ["RBAC_PERMISSION_DENIED", "task.destroy/any"]


def test_every_operation_is_registered_under_a_name_of_the_model() -> None:
    operations.load()
    assert [name for name in OPERATIONS if name not in model.messages] == []
    locks = [(name, op.lock) for name, op in OPERATIONS.items() if op.lock is not None]
    for name, lock in locks:
        declared = model.classes[lock.cls].fields["current_operations"].type
        assert lock.operation in declared.value.values, name  # type: ignore[attr-defined]
