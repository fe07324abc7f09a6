"""What an attacker tries with sessions: choosing one, guessing one, reading one in a log, using an old one."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from services.api.decisions import session_limits
from shared.contracts.db import Create, Delete
from shared.datamodel import model
from shared.datamodel.types import RefType, SetType, Type
from shared.errors import ApiError
from shared.logs import JsonFormatter, track_id
from shared.store import NULL
from tests.api.harness import Client, Pool, error_of

REF = re.compile(r"OpaqueRef:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that this test logs, as services write it."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonFormatter("api", "host"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


async def test_a_reference_is_random_and_not_the_clients_to_choose(pool: Pool) -> None:
    pool.set_password("root", "correct horse")
    wanted = f"OpaqueRef:{uuid.uuid4()}"
    seen = set()
    for originator in (wanted, wanted, ""):
        client = pool.client(user_agent=wanted)
        client.session = await client.raw("session.login_with_password", "root", "correct horse", "1.0", originator)
        seen |= {client.session, await client.call("session.get_uuid", client.session)}
    assert len(seen) == 6
    assert wanted not in seen
    assert all(REF.fullmatch(text) for text in seen if text.startswith("OpaqueRef:"))
    assert await error_of(pool.client().raw("VM.get_all", wanted)) == ["SESSION_INVALID", wanted]


def test_nothing_shows_a_session_to_others() -> None:
    """No field of another class leads to a session, and nobody can list them."""

    def leads_to_session(type_: Type) -> bool:
        inner = type_.of if isinstance(type_, SetType) else type_
        return isinstance(inner, RefType) and inner.cls == "session"

    fields = [f for cls in model.classes.values() for f in cls.fields.values() if leads_to_session(f.type)]
    assert {(f.cls, f.name) for f in fields if not f.internal_only} == {("session", "parent")}
    assert not any(name.startswith("session.get_all") for name in model.messages if "subject" not in name)


@pytest.mark.parametrize(
    "call",
    [
        "session.login_with_password",
        "session.slave_local_login_with_password",
    ],
)
async def test_an_unknown_user_costs_as_much_as_a_known_one(
    pool: Pool, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.set_password("root", "correct horse")
    await error_of(pool.client().raw(call, "warming", "up"))
    derived: list[dict[str, Any]] = []
    derive = hashlib.scrypt

    def count(password: bytes, **cost: Any) -> bytes:
        derived.append({name: value for name, value in cost.items() if name != "salt"})
        return derive(password, **cost)

    monkeypatch.setattr(hashlib, "scrypt", count)
    for user in ("root", "nobody", "", "x" * 10_000):
        assert (await error_of(pool.client().raw(call, user, "wrong horse")))[0] == "SESSION_AUTHENTICATION_FAILED"
    assert len(derived) == 4
    assert all(cost == derived[0] for cost in derived)


async def test_logs_show_neither_passwords_nor_secrets_nor_sessions(pool: Pool, log: io.StringIO) -> None:
    pool.set_password("root", "correct horse")
    await pool.start_api(1)
    client, member = pool.client(), pool.client(1)
    refs = []
    for way in (
        client.raw("session.login_with_password", "root", "correct horse", "1.0", "tests"),
        client.raw("session.slave_login", pool.host_ref(0), pool.secret),
        client.raw("session.slave_local_login", pool.secret),
        member.raw("session.slave_local_login_with_password", "root", "correct horse"),
    ):
        refs.append(await way)
    client.session, member.session = refs[0], refs[3]
    await error_of(client.raw("session.login_with_password", "root", "wrong horse"))
    await error_of(client.raw("session.slave_login", pool.host_ref(0), "wrong secret " * 4))
    vm = await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "vm")
    await client.call("Async.VM.provision", vm)
    await client.refusal("VM.start", "OpaqueRef:x", False, False)
    await member.call("VM.clone", vm, "vm")
    await client.call("session.change_password", "", "newer horse")
    for ref in refs[:2]:
        await client.raw("session.logout", ref)
        assert await error_of(client.raw("Async.VM.provision", ref, vm)) == ["SESSION_INVALID", ref]
    await pool.idle()
    written = log.getvalue()
    assert track_id(refs[0]) in written
    for hidden in (*refs, pool.secret, "correct horse", "wrong horse", "wrong secret", "newer horse"):
        assert hidden not in written, hidden


def test_an_error_in_a_log_does_not_show_the_session_it_is_about() -> None:
    error = ApiError("SESSION_INVALID", "OpaqueRef:another-pools")
    assert "another-pools" not in f"{error}"
    assert error.description == ["SESSION_INVALID", "OpaqueRef:another-pools"]


async def test_what_was_begun_goes_on_after_logout_and_nothing_new_begins(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gates = [host.hold("vm.start") for host in pool.hosts]
    task = await client.call("Async.VM.start", vm, False, False)
    await asyncio.wait([asyncio.ensure_future(gate.reached.wait()) for gate in gates], return_when="FIRST_COMPLETED")
    await client.call("session.logout")
    for gate in gates:
        gate.open()
    await pool.until(lambda: pool.row("task", task)["status"] == "success")
    assert pool.row("VM", vm)["power_state"] == "Running"
    refused = await client.refusal("Async.VM.clean_shutdown", vm)
    assert refused == ["SESSION_INVALID", client.session]


async def test_sessions_that_end_by_themselves_are_invalid(pool: Pool, client: Client) -> None:
    fields = {"this_host": NULL, "this_user": NULL, "last_active": "19700101T00:00:00Z", "is_local_superuser": True}
    await pool.write(Create(cls="session", ref="OpaqueRef:old", fields=fields))
    old = pool.client()
    old.session = "OpaqueRef:old"
    token = (await old.call("event.from", ["VM"], "", 30.0))["token"]
    waiting = old.begin("event.from", ["VM"], token, 30.0)
    ended = session_limits.ended(pool.store, 1e9)
    assert ended == ["OpaqueRef:old"]
    await pool.write(*[Delete(cls="session", ref=ref) for ref in ended])
    assert await error_of(waiting) == ["SESSION_INVALID", "OpaqueRef:old"]
    assert await old.refusal("VM.get_all") == ["SESSION_INVALID", "OpaqueRef:old"]
