"""Sessions: who gets one, how long it lasts, what ends with it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from services.api import clock, sessions, sweep
from services.api.decisions import session_limits
from shared.contracts.db import Create, Update
from shared.store import NULL
from tests.api.harness import Client, Pool, error_of


async def test_the_password_opens_a_session_and_a_wrong_one_does_not(pool: Pool) -> None:
    pool.set_password("root", "correct horse")
    client = pool.client()
    wrong = await error_of(client.raw("session.login_with_password", "root", "wrong horse"))
    assert wrong == ["SESSION_AUTHENTICATION_FAILED", "root", "Authentication failure"]
    nobody = await error_of(client.raw("session.login_with_password", "nobody", "correct horse"))
    assert nobody[:2] == ["SESSION_AUTHENTICATION_FAILED", "nobody"]
    client.session = await client.raw("session.login_with_password", "root", "correct horse", "2.0", "tests")
    record = await client.call("session.get_record", client.session)
    assert (record["auth_user_name"], record["originator"], record["is_local_superuser"]) == ("root", "tests", True)
    assert record["this_host"] == pool.host_ref(0)


async def test_a_changed_password_counts_at_once(pool: Pool) -> None:
    pool.set_password("root", "old horse")
    client = pool.client()
    client.session = await client.raw("session.login_with_password", "root", "old horse")
    await client.call("session.change_password", "", "new horse")
    assert (await error_of(client.raw("session.login_with_password", "root", "old horse")))[0] == (
        "SESSION_AUTHENTICATION_FAILED"
    )
    assert await client.raw("session.login_with_password", "root", "new horse")


async def test_the_unix_socket_needs_no_password(pool: Pool) -> None:
    client = pool.client(trusted=True)
    assert (await client.raw("session.login_with_password", "root", "")).startswith("OpaqueRef:")


async def test_after_logout_the_session_is_invalid(client: Client) -> None:
    session = client.session
    await client.call("session.logout")
    assert await client.refusal("VM.get_all") == ["SESSION_INVALID", session]
    assert await client.refusal("session.logout") == ["SESSION_INVALID", session]


async def test_a_session_that_is_used_stays_and_an_idle_one_goes(pool: Pool, client: Client) -> None:
    """`last_active` follows use, at most every ten minutes; after a day without use the session ends."""
    idle = (await pool.login()).session
    long_ago = clock.stamp(time.time() - session_limits.IDLE_LIMIT - 60)
    old: list[Any] = [
        Update(cls="session", ref=ref, fields={"last_active": long_ago}) for ref in (client.session, idle)
    ]
    await pool.write(*old)
    await client.call("VM.get_all")
    sweeping = asyncio.create_task(sweep.run(pool.api, every=0.01))
    try:
        await pool.until(lambda: pool.row("session", idle) is None)
    finally:
        sweeping.cancel()
    row = pool.row("session", client.session)
    assert row is not None
    assert time.time() - clock.seconds(row["last_active"]) < 60


async def test_use_is_not_written_for_every_call(pool: Pool, client: Client) -> None:
    await client.call("VM.get_all")
    before = pool.store.generation
    for _ in range(20):
        await client.call("VM.get_all")
    assert pool.store.generation == before
    assert sessions.in_use(pool.api, time.time()) == []


async def test_a_session_with_an_unfinished_task_does_not_expire(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gates = [host.hold("vm.start") for host in pool.hosts]
    starting = client.begin("VM.start", vm, False, False)
    await asyncio.wait([asyncio.ensure_future(gate.reached.wait()) for gate in gates], return_when="FIRST_COMPLETED")
    long_ago = clock.stamp(time.time() - session_limits.IDLE_LIMIT - 60)
    await pool.write(Update(cls="session", ref=client.session, fields={"last_active": long_ago}))
    assert client.session not in session_limits.ended(pool.store, time.time())
    for gate in gates:
        gate.open()
    await starting
    assert client.session in session_limits.ended(pool.store, time.time())


async def test_too_many_sessions_of_one_originator_push_out_the_one_idle_longest(pool: Pool, client: Client) -> None:
    """500 with one originator, 400 of root without any (`wire-protocol` 6.3)."""

    def rows(originator: str, count: int) -> list[Any]:
        return [
            Create(
                cls="session",
                ref=f"OpaqueRef:{originator}{number}",
                fields={
                    "this_host": pool.host_ref(0),
                    "this_user": NULL,
                    "last_active": clock.stamp(time.time() - number),
                    "is_local_superuser": True,
                    "auth_user_name": "root",
                    "originator": originator,
                },
            )
            for number in range(count)
        ]

    await pool.write(*rows("tests", session_limits.LIMITS["originator"]), *rows("", session_limits.LIMITS["root"] + 2))
    gone = set(session_limits.ended(pool.store, time.time()))
    oldest = session_limits.LIMITS["originator"] - 1
    assert gone == {
        f"OpaqueRef:tests{oldest}",  # the fixture's own session has this originator too
        f"OpaqueRef:{session_limits.LIMITS['root']}",
        f"OpaqueRef:{session_limits.LIMITS['root'] + 1}",
    }


async def test_sessions_survive_a_restart_of_the_api(pool: Pool, client: Client) -> None:
    await pool.kill_api()
    await pool.start_api()
    again = pool.client()
    again.session = client.session
    assert await again.call("session.get_auth_user_name", client.session) == "root"


async def test_subjects_can_be_listed_and_logged_out(pool: Pool, client: Client) -> None:
    fields = {"auth_user_sid": "S-1", "this_host": NULL, "this_user": NULL, "last_active": clock.now()}
    await pool.write(Create(cls="session", ref="OpaqueRef:s1", fields=fields))
    assert await client.call("session.get_all_subject_identifiers") == ["S-1"]
    await client.call("session.logout_subject_identifier", "S-1")
    assert pool.row("session", "OpaqueRef:s1") is None
    await client.call("session.logout_subject_identifier", "")
    assert pool.row("session", client.session) is not None
