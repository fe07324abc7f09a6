"""What calls leave in the audit log."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.datamodel import model
from shared.datamodel.roles import role_ref
from shared.logs import track_id
from tests.api.core.role_matrix import HOST, log_in
from tests.api.harness import Client, Pool


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    running = await Pool.start(tmp_path, hosts=1, connect=False)
    yield running
    await running.stop()


async def lines(pool: Pool) -> list[str]:
    return b"".join([piece async for piece in pool.api.audit.since("")]).decode().splitlines()


async def said(pool: Pool, action: str) -> list[list[str]]:
    """The words of each line about that message, arguments included."""
    found = [re.findall(r"'((?:[^'\\]|\\.)*)'", line.split("] (", 1)[1]) for line in await lines(pool)]
    return [words for words in found if words[6] == action]


async def test_a_call_that_changes_something_is_noted_with_who_what_and_how(pool: Pool) -> None:
    client = await log_in(pool, "vm-admin", "S-1-5-21")
    vm = pool.ref("VM", "Tiny guest")
    await client.call("VM.set_name_description", vm, "what it is for")
    [words] = await said(pool, "VM.set_name_description")
    uuid = pool.row("VM", vm)["uuid"]
    assert words == [
        *(track_id(client.session), "S-1-5-21", "vm-admin", "ALLOWED", "OK", "API", "VM.set_name_description"),
        *("self", "Tiny guest", uuid, vm),
    ]
    line = (await lines(pool))[-1]
    assert re.match(r"\[\d{8}T\d\d:\d\d:\d\d\.\d{3}Z\|audit\|host0\|0 127\.0\.0\.1\|VM\.set_name_desc.* R:\w+\|", line)


async def test_looking_is_not_noted(pool: Pool) -> None:
    client = await pool.login()
    before = await lines(pool)
    for cls in ("VM", "host", "pool", "session"):
        if f"{cls}.get_all" in model.messages:
            await client.call(f"{cls}.get_all")
    await client.call("VM.get_record", pool.ref("VM", "Tiny guest"))
    await client.call("role.get_permissions_name_label", role_ref("read-only"))
    await client.call("event.from", ["host"], "", 0.0)
    assert await lines(pool) == before


async def test_everything_that_is_refused_is_noted_even_looking(pool: Pool) -> None:
    client = await log_in(pool, "read-only")
    vm = pool.ref("VM", "Tiny guest")
    await client.refusal("VM.start", vm, False, False)
    await client.refusal("secret.get_value", "OpaqueRef:none")
    await client.refusal("Frob.x")
    task = await client.call("Async.VM.destroy", vm)
    await pool.until(lambda: pool.row("task", task)["status"] == "failure")
    for action in ("VM.start", "secret.get_value", "host.call_extension", "VM.destroy"):
        [words] = await said(pool, action)
        assert words[1:4] == ["sid-read-only", "read-only", "DENIED"], action
        assert words[4].startswith(f"ERROR:RBAC_PERMISSION_DENIED: {action.lower()}"), action


async def test_what_fails_is_noted_with_its_error(pool: Pool) -> None:
    client = await pool.login()
    vm = pool.ref("VM", "Tiny guest")
    await client.refusal("VM.pause", vm)
    [words] = await said(pool, "VM.pause")
    assert words[3:5] == ["ALLOWED", f"ERROR:OTHER_OPERATION_IN_PROGRESS: {vm}"] or words[4].startswith("ERROR:VM_")
    assert words[:3] == [track_id(client.session), "LOCAL_SUPERUSER", "root"]


async def test_what_was_destroyed_keeps_its_name_in_the_log(pool: Pool) -> None:
    client = await pool.login()
    vm = await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "doomed's\n'OK'")
    uuid = pool.row("VM", vm)["uuid"]
    await client.call("VM.destroy", vm)
    [words] = await said(pool, "VM.destroy")
    assert words[7:] == ["self", "doomed\\'s \\'OK\\'", uuid, vm]
    [words] = await said(pool, "VM.clone")
    assert words[-4:] == ["new_name", "doomed\\'s \\'OK\\'", "", ""]


async def test_secrets_and_passwords_are_in_no_line(pool: Pool) -> None:
    pool.set_password("root", "correct horse")
    client = pool.client()
    client.session = await client.raw("session.login_with_password", "root", "correct horse", "1.0", "tests")
    secret = await client.call("secret.create", {"value": "battery staple", "other_config": {"a": "stapled"}})
    await client.call("secret.set_value", secret, "battery staple 2")
    await client.call("session.change_password", "correct horse", "wrong horse")
    await client.call("VM.add_to_xenstore_data", pool.ref("VM", "Tiny guest"), "vm-data/x", "battery staple 3")
    await client.call("session.set_other_config", client.session, {"a": "battery staple 4"})
    text = "\n".join(await lines(pool))
    assert "session.change_password" in text
    assert "secret.set_value" in text
    assert "horse" not in text
    assert "staple" not in text
    assert client.session not in text
    assert track_id(client.session) in text


async def test_logins_are_noted_logouts_and_wrong_passwords_are_not(pool: Pool) -> None:
    pool.set_password("root", "correct horse")
    client = pool.client()
    client.session = await client.raw("session.login_with_password", "root", "correct horse")
    [words] = await said(pool, "session.login_with_password")
    assert words[:5] == [track_id(client.session), "LOCAL_SUPERUSER", "root", "ALLOWED", "OK"]
    with pytest.raises(Exception, match="SESSION_AUTHENTICATION_FAILED"):
        await client.raw("session.login_with_password", "root", "wrong")
    await client.call("session.logout")
    assert len(await lines(pool)) == 1


async def test_a_host_of_the_pool_may_add_lines_but_no_line_breaks(pool: Pool) -> None:
    host = await log_in(pool, HOST)
    await host.call("pool.audit_log_append", "('trackid=1'\n'x')")
    assert (await lines(pool))[-1].endswith("('trackid=1' 'x')")
    admin = await log_in(pool, "pool-admin")
    assert (await admin.refusal("pool.audit_log_append", "x"))[0] == "INTERNAL_ERROR"


async def test_lines_survive_the_end_of_the_process(pool: Pool) -> None:
    client = await pool.login()
    for number in range(20):
        await client.call("VM.set_name_description", pool.ref("VM", "Tiny guest"), str(number))
    await pool.stop_api()
    [path] = pool.folder.glob("api-*/audit.log")
    assert path.read_text().count("'VM.set_name_description'") == 20
    await pool.start_api()


async def test_calls_do_not_wait_for_the_log(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    client: Client = await pool.login()
    blocked = asyncio.Event()

    async def never() -> bool:
        await blocked.wait()
        return True

    monkeypatch.setattr(pool.api.audit, "flush", never)
    async with asyncio.timeout(30):
        await client.call("VM.set_name_description", pool.ref("VM", "Tiny guest"), "x")
    blocked.set()
    monkeypatch.undo()
    assert len(await said(pool, "VM.set_name_description")) == 1
