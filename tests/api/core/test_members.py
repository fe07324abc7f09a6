"""A member: what it does by itself, what it passes on, and what is left of it without the database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from services.api import emergency, service
from services.api.api import Api
from services.api.edge.dispatcher import Answer, Caller
from services.api.wire.jsonrpc import JSON
from services.api.wire.raw import RawParams
from shared import pool_secret
from shared.contracts.db import Delete
from shared.host_role import member_of
from tests.api.harness import Client, Pool, error_of

BOOTING = ["HOST_STILL_BOOTING"]


@pytest.fixture
async def member(pool: Pool) -> Client:
    await pool.start_api(1)
    return pool.client(1)


@pytest.fixture
async def alone(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A member that was started while there is no database."""
    monkeypatch.setattr(service, "PATIENCE", 0.05)
    pool.set_password("root", "correct horse")
    await pool.kill_db()
    await pool.start_api(1)
    yield pool.client(1)
    await pool.kill_api(1)
    await pool.start_db()


def api_of(pool: Pool) -> Api:
    return pool.core_of(1).api


async def local(client: Client) -> Client:
    client.session = await client.raw("session.slave_local_login_with_password", "root", "correct horse")
    return client


# ---- logins of hosts


async def test_the_pool_secret_opens_a_session_of_a_host_anywhere(pool: Pool, member: Client) -> None:
    host = pool.host_ref(1)
    for client in (pool.client(), member):
        client.session = await client.raw("session.slave_login", host, pool.secret)
        record = await client.call("session.get_record", client.session)
        assert (record["pool"], record["is_local_superuser"], record["this_host"]) == (True, True, host)
        assert (record["auth_user_name"], record["rbac_permissions"]) == (host, [])
        await client.call("session.logout")


async def test_a_wrong_secret_opens_nothing_and_tells_nothing_of_hosts(pool: Pool, member: Client) -> None:
    for client in (pool.client(), member):
        for host in (pool.host_ref(1), "OpaqueRef:nothing"):
            refused = await error_of(client.raw("session.slave_login", host, pool.secret + "x"))
            assert refused[:2] == ["SESSION_AUTHENTICATION_FAILED", host]
        refused = await error_of(client.raw("session.slave_local_login", "wrong"))
        assert refused[:2] == ["SESSION_AUTHENTICATION_FAILED", "localhost"]
    unknown = await error_of(pool.client().raw("session.slave_login", "OpaqueRef:nothing", pool.secret))
    assert unknown == ["HANDLE_INVALID", "host", "OpaqueRef:nothing"]


async def test_while_secrets_are_exchanged_the_old_and_the_new_one_count(pool: Pool) -> None:
    old, new, host = pool.secret, pool_secret.generate(), pool.host_ref(0)
    pool_secret.write(pool.secret_file, [new, old])
    for secret in (old, new):
        assert await pool.client().raw("session.slave_login", host, secret)
    pool_secret.write(pool.secret_file, [new])
    refused = await error_of(pool.client().raw("session.slave_login", host, old))
    assert refused[0] == "SESSION_AUTHENTICATION_FAILED"


async def test_a_host_may_read_and_change_through_a_member(pool: Pool, member: Client) -> None:
    member.session = await member.raw("session.slave_login", pool.host_ref(1), pool.secret)
    assert set(await member.call("host.get_all")) == set(pool.store.rows("host"))
    vm = await member.call("VM.clone", pool.ref("VM", "Tiny guest"), "from a host")
    assert pool.row("VM", vm)["name_label"] == "from a host"
    task = await member.call("Async.VM.provision", vm)
    await pool.until(lambda: pool.row("task", task)["status"] == "success")
    assert pool.api.host_ref == pool.row("task", task)["resident_on"]


async def test_logins_over_a_members_unix_socket_are_of_that_host(pool: Pool) -> None:
    await pool.start_api(1)
    root = pool.client(1, trusted=True)
    root.session = await root.raw("session.login_with_password", "root", "")
    assert await root.call("session.get_this_host", root.session) == pool.host_ref(1)
    assert api_of(pool).store.row("session", root.session) is not None


async def test_the_hosts_internal_address_passes_calls_on_too(pool: Pool) -> None:
    core = await pool.start_api(1)
    core.api.options = msgspec.structs.replace(core.api.options, internal_address="169.254.0.1")
    guest = pool.client(1, host_header="169.254.0.1")
    pool.set_password("root", "correct horse")
    guest.session = await guest.raw("session.login_with_password", "root", "correct horse")
    assert await guest.call("pool.get_all") == list(pool.store.rows("pool"))
    assert (await error_of(guest.raw("session.login_with_password", "root", "wrong")))[0] == (
        "SESSION_AUTHENTICATION_FAILED"
    )


# ---- local sessions


async def test_a_local_session_is_known_to_its_host_alone(pool: Pool, member: Client) -> None:
    pool.set_password("root", "correct horse")
    await local(member)
    assert pool.row("session", member.session) is None
    assert api_of(pool).store.row("session", member.session) is None
    elsewhere = await error_of(pool.client().raw("VM.get_all", member.session))
    assert elsewhere == ["SESSION_INVALID", member.session]


async def test_a_local_session_may_do_everything_on_its_host(pool: Pool, member: Client) -> None:
    pool.set_password("root", "correct horse")
    await local(member)
    assert set(await member.call("host.get_all")) == set(pool.store.rows("host"))
    before = set(pool.store.rows("session"))
    vm = await member.call("VM.clone", pool.ref("VM", "Tiny guest"), "by a local session")
    task = await member.call("Async.VM.provision", vm)
    await pool.until(lambda: pool.row("task", task)["status"] == "success")
    assert set(pool.store.rows("session")) == before
    assert (await member.refusal("VM.start", "OpaqueRef:x", False, False))[0] == "HANDLE_INVALID"


async def test_local_sessions_end_by_either_logout(pool: Pool, member: Client) -> None:
    pool.set_password("root", "correct horse")
    for logout in ("session.local_logout", "session.logout"):
        await local(member)
        await member.call(logout)
        assert await member.refusal("host.get_all") == ["SESSION_INVALID", member.session]


async def test_a_local_logout_leaves_other_sessions_alone(pool: Pool, client: Client) -> None:
    await client.call("session.local_logout")
    assert await client.call("VM.get_all")


async def test_on_the_coordinator_a_local_session_works_and_its_tasks_do_not_show_it(pool: Pool) -> None:
    root = pool.client(trusted=True)
    root.session = await root.raw("session.slave_local_login_with_password", "root", "")
    vm = await root.call("VM.clone", pool.ref("VM", "Tiny guest"), "local")
    task = await root.call("Async.VM.provision", vm)
    assert pool.row("task", task)["session"] == "OpaqueRef:NULL"
    await pool.until(lambda: pool.row("task", task)["status"] == "success")


async def test_a_local_login_needs_the_password_or_the_secret(pool: Pool, member: Client) -> None:
    pool.set_password("root", "correct horse")
    wrong = await error_of(member.raw("session.slave_local_login_with_password", "root", "wrong horse"))
    assert wrong == ["SESSION_AUTHENTICATION_FAILED", "root", "Authentication failure"]
    member.session = await member.raw("session.slave_local_login", pool.secret)
    assert await member.call("pool.is_slave", pool.host_ref(1)) is True


# ---- emergency mode


async def test_a_member_without_the_database_answers_what_repairs_it_and_nothing_else(
    pool: Pool, alone: Client
) -> None:
    assert await error_of(alone.raw("VM.get_all", "OpaqueRef:any")) == BOOTING
    assert await error_of(alone.raw("session.login_with_password", "root", "correct horse")) == BOOTING
    assert await error_of(alone.raw("system.listMethods")) == BOOTING
    assert await error_of(alone.raw("Frob.nicate")) == BOOTING
    await local(alone)
    assert await alone.call("host.is_in_emergency_mode") is True
    assert await alone.call("pool.is_slave", "OpaqueRef:any") is True
    assert await alone.refusal("host.local_assert_healthy") == BOOTING
    await alone.call("session.local_logout")
    assert await alone.refusal("host.is_in_emergency_mode") == ["SESSION_INVALID", alone.session]


async def test_in_emergency_mode_other_spellings_are_refused(alone: Client) -> None:
    await local(alone)
    for spelling in ("Async.host.is_in_emergency_mode", "host_is_in_emergency_mode"):
        assert await alone.refusal(spelling) == BOOTING


async def test_the_pool_secret_lets_hosts_in_without_the_database(pool: Pool, alone: Client) -> None:
    alone.session = await alone.raw("session.slave_local_login", pool.secret)
    assert await alone.call("host.is_in_emergency_mode") is True


async def test_root_on_the_machine_needs_no_password_without_the_database(pool: Pool, alone: Client) -> None:
    root = pool.client(1, trusted=True)
    root.session = await root.raw("session.slave_local_login_with_password", "root", "")
    assert await root.call("host.is_in_emergency_mode") is True
    assert await root.refusal("VM.get_all") == BOOTING


async def test_emergency_failures_are_found_before_the_call_is_looked_at(pool: Pool, alone: Client) -> None:
    caller = Caller(host=pool.hosts[1].uuid)
    outcome = pool.core_of(1).dispatcher.call(caller, "VM.get_all", RawParams([]), JSON)
    assert isinstance(outcome, Answer)
    assert (outcome.error, outcome.early) == (BOOTING, True)


async def test_emergency_mode_ends_when_the_database_comes(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PATIENCE", 0.05)
    await pool.kill_db()
    core = await pool.start_api(1)
    assert await error_of(pool.client(1).raw("VM.get_all", "x")) == BOOTING
    await pool.start_db()
    await core.api.replica.wait_ready()
    assert await error_of(pool.client(1).raw("VM.get_all", "x")) == ["SESSION_INVALID", "x"]


async def test_a_database_that_is_silent_for_long_means_emergency(
    pool: Pool, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await error_of(member.raw("VM.get_all", "x")) == ["SESSION_INVALID", "x"]
    monkeypatch.setattr(emergency, "SILENCE", -1.0)
    assert await error_of(member.raw("VM.get_all", "x")) == BOOTING
    assert await pool.client(trusted=True).raw("session.login_with_password", "root", "")  # the coordinator is none


async def test_every_word_of_the_database_ends_its_silence(pool: Pool, member: Client) -> None:
    replica = api_of(pool).replica
    before = replica.silence
    await pool.login()
    await pool.until(lambda: True)
    assert replica.silence < before + 1.0


async def test_a_member_that_the_pool_does_not_know_says_so(pool: Pool, member: Client) -> None:
    uuid = pool.hosts[1].uuid
    await pool.write(Delete(cls="host", ref=pool.host_ref(1)))
    await api_of(pool).replica.wait_generation(pool.store.generation)
    assert await error_of(member.raw("VM.get_all", "x")) == ["HOST_UNKNOWN_TO_MASTER", uuid]


async def test_a_member_that_is_told_to_follow_itself_says_so(pool: Pool, member: Client) -> None:
    api = api_of(pool)
    api.role.now = member_of(api.hosts[0].address)
    assert await error_of(member.raw("VM.get_all", "x")) == ["HOST_ITS_OWN_SLAVE"]


async def test_a_member_that_reaches_the_database_is_healthy(pool: Pool, member: Client) -> None:
    member.session = await member.raw("session.slave_login", pool.host_ref(1), pool.secret)
    assert await member.call("host.is_in_emergency_mode") is False
    await member.call("host.local_assert_healthy")
