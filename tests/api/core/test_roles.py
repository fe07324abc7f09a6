"""Roles beyond the plain message: guarded keys, other people's tasks, unknown methods, and the rows of class role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.api.access import Access
from services.api.audit.http import Audited
from services.api.edge.dispatcher import Basic, Caller, Credential, Session
from services.api.edge.handlers import HANDLERS
from services.api.identity import Identity
from services.api.operations.role import names
from services.api.role_rows import holders
from shared.contracts.db import Update
from shared.datamodel.roles import HIGH_TO_LOW, role_ref
from tests.api.core.role_matrix import NOBODY, log_in, text
from tests.api.harness import Client, Pool, error_of
from tests.datamodel import reference

NOWHERE = "OpaqueRef:none"


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    running = await Pool.start(tmp_path, hosts=1, connect=False)
    yield running
    await running.stop()


def guarded_maps() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Class, field, guarded key and the roles that may change it, as the reference has them."""
    return [
        (name, field["name"], key, tuple(roles))
        for name, cls in reference.classes().items()
        for field in cls["fields"]
        for key, roles in field.get("guarded_keys", [])
    ]


async def test_a_guarded_key_is_for_the_roles_that_the_reference_names(pool: Pool) -> None:
    """The map's own roles neither suffice nor are needed. An object that is not there tells that the call got through,
    and nothing is changed by it.
    """
    assert len(guarded_maps()) == 20
    for role in HIGH_TO_LOW:
        client = await log_in(pool, role)
        for cls, field, key, roles in guarded_maps():
            for method, value in ((f"{cls}.add_to_{field}", ["x"]), (f"{cls}.remove_from_{field}", [])):
                permission = f"{method}/key:{key}".lower()
                got_through = [["HANDLE_INVALID", cls, NOWHERE]]
                expected = got_through[0] if role in roles else ["RBAC_PERMISSION_DENIED", permission, text(roles)]
                for spelling in (key, key.upper(), key.lower().replace("*", "*owner")):
                    assert await client.refusal(method, NOWHERE, spelling, *value) == expected, (role, method, spelling)


async def test_another_key_is_for_the_roles_of_the_map(pool: Pool) -> None:
    operator, reader = await log_in(pool, "vm-operator"), await log_in(pool, "read-only")
    for key in ("folders", "xencenter.customfields", "pci2", ""):
        refused = await operator.refusal("VM.add_to_other_config", NOWHERE, key, "x")
        assert refused[:2] == ["RBAC_PERMISSION_DENIED", "vm.add_to_other_config"]
    assert (await reader.refusal("task.add_to_other_config", NOWHERE, "mine", "x"))[0] == "HANDLE_INVALID"


@pytest.fixture
async def vm(pool: Pool) -> str:
    found = pool.ref("VM", "Tiny guest")
    old = {"other_config": {"pci": "0/0000:03:00.0", "folder": "/", "note": "1"}, "platform": {"hvm_serial": "pty"}}
    await pool.write(Update(cls="VM", ref=found, fields=old))
    return found


async def test_replacing_a_whole_map_needs_the_permission_of_every_guarded_key_that_it_changes(
    pool: Pool, vm: str
) -> None:
    admin, everything = await log_in(pool, "vm-admin"), await log_in(pool, "pool-admin")
    now: dict[str, str] = pool.row("VM", vm)["other_config"]
    refused = {
        "add_to_other_config/key:pci": {**now, "pci": "0/0000:04:00.0"},
        "remove_from_other_config/key:pci": {key: value for key, value in now.items() if key != "pci"},
        "add_to_other_config/key:hvm_serial": {**now, "HVM_serial": "tcp:0.0.0.0:1"},
    }
    for permission, wanted in refused.items():
        error = await admin.refusal("VM.set_other_config", vm, wanted)
        assert error == ["RBAC_PERMISSION_DENIED", f"vm.{permission}", text(("pool-admin",))]
        assert pool.row("VM", vm)["other_config"] == now
    await admin.call("VM.set_other_config", vm, {**now, "folder": "/elsewhere", "note": "2"})
    for wanted in refused.values():
        await everything.call("VM.set_other_config", vm, wanted)
        assert pool.row("VM", vm)["other_config"] == wanted
    operator = await log_in(pool, "vm-operator")
    assert (await operator.refusal("VM.set_other_config", vm, {}))[1] == "vm.set_other_config"


async def test_a_serial_line_is_the_pool_admins_to_set(pool: Pool, vm: str) -> None:
    admin = await log_in(pool, "vm-admin")
    await admin.call("VM.set_platform", vm, {"hvm_serial": "pty", "acpi": "1"})
    for wanted, verb in (({"hvm_serial": "none"}, "add_to"), ({}, "remove_from")):
        error = await admin.refusal("VM.set_platform", vm, wanted)
        assert error[:2] == ["RBAC_PERMISSION_DENIED", f"vm.{verb}_platform/key:hvm_serial"]
    assert pool.row("VM", vm)["platform"] == {"hvm_serial": "pty", "acpi": "1"}


async def test_a_new_vm_cannot_bring_what_its_maker_may_not_add(pool: Pool, vm: str) -> None:
    admin = await log_in(pool, "vm-admin")
    record = await admin.call("VM.get_record", vm)
    before = set(pool.store.rows("VM"))
    error = await admin.refusal("VM.create", record)
    assert error[:2] == ["RBAC_PERMISSION_DENIED", "vm.add_to_platform/key:hvm_serial"]
    error = await admin.refusal("VM.create", {**record, "platform": {}})
    assert error[:2] == ["RBAC_PERMISSION_DENIED", "vm.add_to_other_config/key:pci"]
    assert set(pool.store.rows("VM")) == before


# ---- tasks


def task_calls(task: str) -> list[tuple[str, list[Any]]]:
    """Everything that changes a task."""
    return [
        ("task.set_status", [task, "success"]),
        ("task.set_progress", [task, 0.5]),
        ("task.set_result", [task, "x"]),
        ("task.set_error_info", [task, ["x"]]),
        ("task.add_to_other_config", [task, "mine", "x"]),
        ("task.remove_from_other_config", [task, "mine"]),
        ("task.set_other_config", [task, {"mine": "x"}]),
        ("task.cancel", [task]),
        ("task.destroy", [task]),
    ]


def test_all_messages_that_change_a_task_are_tried_here() -> None:
    tried = {method for method, _ in task_calls("")}
    verbs = ("set_", "add_to_", "remove_from_", "cancel", "destroy")
    there = {f"task.{m['name']}" for m in reference.classes()["task"]["messages"] if m["name"].startswith(verbs)}
    assert tried == there


@pytest.mark.parametrize("caller", ["read-only", "vm-operator", "vm-admin", "vm-power-admin", "client-cert"])
async def test_other_peoples_tasks_are_left_alone(pool: Pool, caller: str) -> None:
    root = await pool.login()
    task = await root.call("task.create", "root's", "")
    before = dict(pool.row("task", task))
    client = await log_in(pool, caller)
    for method, arguments in task_calls(task):
        error = await client.refusal(method, *arguments)
        expected = ["RBAC_PERMISSION_DENIED", "task.destroy/any", text(("pool-admin", "pool-operator"))]
        assert error == expected, method
    for method in ("Async.task.cancel", "InternalAsync.task.cancel"):
        await client.call(method, task)
        await pool.idle()
    assert pool.row("task", task) == before


@pytest.mark.parametrize("caller", ["pool-operator", "pool-admin"])
async def test_operators_handle_everybodys_tasks(pool: Pool, caller: str) -> None:
    owner, operator = await log_in(pool, "read-only"), await log_in(pool, caller)
    for method, _ in task_calls(""):
        task = await owner.call("task.create", "a reader's", "")
        arguments = next(given for name, given in task_calls(task) if name == method)
        await operator.call(method, *arguments)


async def test_a_user_has_the_same_tasks_in_each_of_his_sessions(pool: Pool) -> None:
    one, other = await log_in(pool, "read-only", "S-1"), await log_in(pool, "vm-admin", "S-1")
    stranger = await log_in(pool, "vm-operator", "S-2")
    task = await one.call("task.create", "mine", "")
    await other.call("task.set_progress", task, 0.25)
    assert pool.row("task", task)["progress"] == 0.25
    assert (await stranger.refusal("task.destroy", task))[1] == "task.destroy/any"
    await other.call("task.set_status", task, "success")
    await other.call("task.destroy", task)
    assert pool.row("task", task) is None


async def test_marks_of_the_graphical_client_on_a_task_are_for_operators_of_vms(pool: Pool) -> None:
    reader = await log_in(pool, "read-only")
    task = await reader.call("task.create", "mine", "")
    await reader.call("task.set_other_config", task, {"mine": "1"})
    error = await reader.refusal("task.set_other_config", task, {"mine": "1", "applies_to": "x"})
    assert error[:2] == ["RBAC_PERMISSION_DENIED", "task.add_to_other_config/key:applies_to"]
    assert pool.row("task", task)["other_config"] == {"mine": "1"}


# ---- what is no message


async def test_an_unknown_method_is_for_those_who_may_call_extensions(pool: Pool) -> None:
    for role in HIGH_TO_LOW:
        client = await log_in(pool, role)
        error = await client.refusal("Frob.x")
        expected = ["host.call_extension", text(("pool-admin",))]
        known = role == "pool-admin"
        assert error == (["MESSAGE_METHOD_UNKNOWN", "Frob.x"] if known else ["RBAC_PERMISSION_DENIED", *expected])


async def test_a_session_without_roles_can_do_nothing_but_what_needs_none(pool: Pool) -> None:
    client = await log_in(pool, NOBODY)
    for method in ("VM.get_all", "session.logout", "pool.get_all_records", "event.from"):
        error = await client.refusal(method, *([["*"], "", 0.0] if method == "event.from" else []))
        assert error[:2] == ["RBAC_PERMISSION_DENIED", method.lower()]


# ---- HTTP


class Directory:
    """Knows one user, who is only to read."""

    is_on = True

    @property
    def logins(self) -> Directory:
        return self

    async def identify(self, user: str, password: str) -> Identity:
        return Identity(user_name=user, auth_user_sid="S-1", rbac_permissions=tuple(names([role_ref("read-only")])))


@pytest.fixture
def http(pool: Pool) -> Callable[[Credential, str], Awaitable[str]]:
    """Tries a handler's permission with a credential: the name of the session that it gets."""
    pool.api.directory = Directory()  # type: ignore[assignment]
    caller = Caller(host=pool.hosts[0].uuid, address="127.0.0.1", user_agent="tests")
    access = Audited(pool.api, Access(pool.api))

    async def attempt(credential: Credential, permission: str) -> str:
        async with access.session(caller, credential, permission) as session:
            return str(pool.row("session", session)["auth_user_name"])

    return attempt


async def test_http_basic_gives_no_more_than_the_users_roles(
    pool: Pool, http: Callable[[Credential, str], Awaitable[str]]
) -> None:
    everybody = await log_in(pool, "read-only")
    before = set(pool.store.rows("session"))
    for credential in (Basic("reader", "x"), Session(everybody.session)):
        for row in HANDLERS:
            if not row.role or row.role == "local root":
                continue
            roles = holders()[row.permission]
            if "read-only" in roles:
                assert await http(credential, row.permission) in ("reader", "read-only")
            else:
                expected = ["RBAC_PERMISSION_DENIED", row.permission, text(roles)]
                assert await error_of(http(credential, row.permission)) == expected
    assert set(pool.store.rows("session")) == before


# ---- rows


async def test_a_session_knows_what_it_may_do(pool: Pool) -> None:
    for role in HIGH_TO_LOW:
        client = await log_in(pool, role)
        names = await client.call("role.get_permissions_name_label", role_ref(role))
        assert await client.call("session.get_rbac_permissions", client.session) == names
        refs = await client.call("role.get_permissions", role_ref(role))
        assert refs == await client.call("role.get_subroles", role_ref(role))
        records = await client.call("role.get_all_records")
        assert [records[ref]["name_label"] for ref in refs] == names


async def test_the_roles_of_a_permission_are_those_that_have_it(pool: Pool) -> None:
    client = await log_in(pool, "read-only")
    for label, expected in {
        "vm.start": HIGH_TO_LOW[:5],
        "vm.get_all": HIGH_TO_LOW,
        "vm.add_to_other_config/key:pci": ("pool-admin",),
        "http/get_audit_log": HIGH_TO_LOW,
        "task.destroy/any": ("pool-admin", "pool-operator"),
        "nothing": (),
    }.items():
        found = await client.call("role.get_by_permission_name_label", label)
        assert sorted(found) == sorted(role_ref(name) for name in expected), label
        assert sorted(await client.call("role.get_by_permission", role_ref(label))) == sorted(found)


async def test_what_a_role_may_do_follows_changes_of_the_row(pool: Pool) -> None:
    """Revalidation writes the row anew; a set made from the old one is not asked any more."""
    client = await log_in(pool, "read-only")
    await client.call("VM.get_all")
    await pool.write(Update(cls="session", ref=client.session, fields={"rbac_permissions": ["pool.get_all"]}))
    await client.call("pool.get_all")
    assert (await client.refusal("VM.get_all"))[:2] == ["RBAC_PERMISSION_DENIED", "vm.get_all"]


async def _ended(pool: Pool, client: Client, task: str) -> Any:
    async with asyncio.timeout(30):
        await pool.until(lambda: pool.row("task", task)["status"] != "pending")
    return pool.row("task", task)


async def test_an_asynchronous_call_is_checked_with_its_arguments(pool: Pool) -> None:
    client = await log_in(pool, "read-only")
    task = await client.call("Async.VM.start", NOWHERE, False, False)
    row = await _ended(pool, client, task)
    assert row["error_info"][:2] == ["RBAC_PERMISSION_DENIED", "vm.start"]
