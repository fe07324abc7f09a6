"""What members of a pool send to the coordinator, and what they serve themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch

import pytest

from services.api.handlers.handler import HANDLERS, Registered, Request
from shared import passwords
from tests.api.handlers.conftest import Site
from tests.api.harness import Pool


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[Site]:
    pool = await Pool.start(tmp_path, hosts=2)
    await pool.start_api(1)
    site = Site(pool, await pool.login(), tmp_path, number=1)
    await site.start()
    yield site
    await site.stop()
    await pool.stop()


async def test_what_the_coordinator_keeps_is_had_from_there(member: Site) -> None:
    blob = await member.client.call("blob.create", "text/plain", True)
    task = await member.task()
    for method, path in (
        ("GET", f"/blob?ref={blob}&task_id={task}"),
        ("PUT", f"/blob?ref={blob}&task_id={task}"),
        ("PUT", f"/messages?cls=Host&uuid={member.api.host_uuid}&task_id={task}"),
        ("PUT", f"/import_metadata?force=true&task_id={task}"),
    ):
        reply = await member.ask(method, path, b"" if method == "PUT" else None)
        assert (reply.line, reply.body, reply["connection"]) == ("HTTP/1.1 302 Found", b"", "close")
        address = member.api.coordinator_address
        assert reply["location"] == f"https://{address}{path}&session_id={member.client.session}"
    assert member.pool.row("task", task)["status"] == "pending"


async def test_what_is_the_members_own_is_had_from_it(member: Site) -> None:
    member.pool.set_password("root", "secret")
    reply = await member.ask("GET", "/sync_config_files/2")
    assert passwords.read(member.pool.folder / "passwords")["root"].encode() in reply.body
    task = await member.task()
    assert (await member.ask("GET", f"/system-status?entries=versions&task_id={task}")).status == 200
    assert (await member.ended(task))["status"] == "success"
    assert (await member.ask("GET", "/updates")).status in (403, 404)


async def test_a_stream_on_a_member_is_cancelled_by_its_task(member: Site) -> None:
    """The coordinator hears of it, and tells everybody."""
    begun = asyncio.Event()

    async def forever(request: Request) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = await member.task()
    with patch.dict(HANDLERS, {"get_config_sync": Registered(forever, None)}):
        connection = await member.connect()
        await connection.send(member.request("GET", f"/sync_config_files/2?task_id={task}"))
        await begun.wait()
        await member.client.call("task.cancel", task)
        assert (await member.ended(task))["status"] == "cancelled"
        assert (await connection.reply()).status == 500
