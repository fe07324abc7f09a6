"""Messages that are brought from another pool."""

from __future__ import annotations

import uuid
from typing import Any
from xml.sax.saxutils import escape

from tests.api.handlers.conftest import Site
from tests.api.handlers.test_blob import is_cut_off


def message(name: str = "VM_STARTED", body: str = "a <body>", **fields: str) -> str:
    values = {
        "generation": "17",
        "ref": "OpaqueRef:1",
        "name": name,
        "priority": "5",
        "cls": "VM",
        "obj_uuid": "from elsewhere",
        "timestamp": "20240102T03:04:05Z",
        "uuid": str(uuid.uuid4()),
        "body": body,
        **fields,
    }
    return "<message>" + "".join(f"<{key}>{escape(value)}</{key}>" for key, value in values.items()) + "</message>"


def target(site: Site) -> str:
    return f"/messages?cls=Host&uuid={site.api.host_uuid}"


def stored(site: Site) -> list[Any]:
    return sorted(site.pool.store.rows("message").values(), key=lambda row: str(row["name"]))


async def test_messages_keep_their_times_and_belong_to_the_named_object(site: Site) -> None:
    parts = [message("A"), '<?xml version="1.0"?>\n' + message("B", "ü" * 3000), message("C", priority="1", body="")]
    reply = await site.ask("PUT", target(site), "\n".join(parts).encode())
    assert (reply.line, reply.body) == ("HTTP/1.1 200 OK", b"")
    [a, b, c] = stored(site)
    assert (a["cls"], a["obj_uuid"], a["priority"], a["body"]) == ("Host", site.api.host_uuid, 5, "a <body>")
    assert (a["timestamp"], b["body"], c["priority"], c["body"]) == ("20240102T03:04:05Z", "ü" * 3000, 1, "")


async def test_bringing_the_same_messages_twice_brings_them_once(site: Site) -> None:
    body = (message("A") + message("B")).encode()
    for _ in range(2):
        await site.ask("PUT", target(site), body + body)
    assert [row["name"] for row in stored(site)] == ["A", "B"]


async def test_a_body_without_length_ends_with_the_clients_half_of_the_connection(site: Site) -> None:
    connection = await site.connect()
    await connection.send(site.request("PUT", target(site)))
    for part in (message("A")[:50], message("A")[50:], message("B")):
        await connection.send(part)
    connection.writer.write_eof()
    assert (await connection.reply()).status == 200
    assert len(stored(site)) == 2


async def test_what_the_messages_are_about_must_be_named_and_known(site: Site) -> None:
    uuid_ = site.api.host_uuid
    for path in ("/messages", "/messages?cls=Host", f"/messages?uuid={uuid_}", f"/messages?cls=Frob&uuid={uuid_}"):
        reply = await site.ask("PUT", path, b"")
        assert (reply.line, reply.body) == ("HTTP/1.1 400 Bad Request", b"")
    reply = await site.ask("PUT", f"/messages?cls=VM&uuid={uuid_}", b"")
    assert (reply.status, b"UUID_INVALID: [ VM; " in reply.body) == (500, True)


JUNK = [
    "junk",
    "<message>",
    "<message></message>",
    "<other></other></message>",
    message(priority="high"),
    message(priority="9" * 30),
    message(timestamp="yesterday"),
    '<!DOCTYPE m [<!ENTITY a "b">]>' + message(),
    "<message>" + "<name>" * 5000 + "</message>",
    message(body="x" * 1_100_000),
]


async def test_what_is_no_message_fails_the_task_or_cuts_the_connection(site: Site) -> None:
    for body in JUNK:
        connection = await site.connect()
        await connection.send(site.request("PUT", target(site), body.encode()))
        assert await is_cut_off(connection)
        task = await site.task()
        assert (await site.ask("PUT", f"{target(site)}&task_id={task}", body.encode())).status == 200
        row = await site.ended(task)
        assert (row["status"], row["error_info"][0]) == ("failure", "INTERNAL_ERROR")
    assert stored(site) == []


async def test_thousands_of_messages_are_brought_in_one_go(site: Site) -> None:
    body = "".join(message(f"M{number}") for number in range(2000)).encode()
    await site.ask("PUT", target(site), body)
    assert len(stored(site)) == 2000
