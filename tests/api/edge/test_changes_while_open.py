"""Certificates and ports that change while clients are connected."""

from __future__ import annotations

import asyncio

import pytest

from services.api.edge.endpoint import Kind
from services.api.edge.tls import Shown
from tests.api.edge.conftest import HOST, Running
from tests.api.edge.fakes import Client, call, post, unverified
from tests.api.messages.pki import certificate, key_pem, rsa_key


async def shown(edge: Running, name: str = "") -> bytes:
    """The certificate that a new connection sees."""
    _, writer = await asyncio.open_connection(
        HOST.address, edge.tls_port, ssl=unverified(), server_hostname=name or None
    )
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return found


async def echo(client: Client) -> str:
    return (await client.ask(post(call("test.echo", "s", "x")))).value


async def test_connections_go_on_when_the_certificate_changes(edge: Running) -> None:
    client = await edge.client(Kind.TLS)
    assert await echo(client) == "x"
    before, internal = await shown(edge), await shown(edge, "pool")
    assert internal != before
    edge.edge.certificates.install(HOST, certificate("new"), key_pem(rsa_key()), "")
    edge.edge.certificates.reload(HOST)
    assert await shown(edge) != before
    assert await shown(edge, "pool") == internal
    assert await echo(client) == "x"


async def test_hosts_see_a_certificate_of_their_own(edge: Running) -> None:
    before, internal = await shown(edge), await shown(edge, "pool")
    edge.edge.certificates.self_sign(HOST, Shown.HOSTS)
    edge.edge.certificates.reload(HOST)
    assert await shown(edge) == before
    assert await shown(edge, "pool") != internal


async def test_the_port_for_plain_http_is_closed_and_opened_again(edge: Running) -> None:
    idle, secure = await edge.client(), await edge.client(Kind.TLS)
    assert await echo(idle) == "x"
    await edge.edge.https_only(HOST.uuid, True)
    assert await idle.at_end()
    with pytest.raises(ConnectionRefusedError):
        await edge.client()
    assert await echo(secure) == "x"
    await edge.edge.https_only(HOST.uuid, True)
    await edge.edge.https_only(HOST.uuid, False)
    assert await echo(await edge.client()) == "x"


async def test_a_call_in_progress_is_answered_before_its_port_is_closed(edge: Running) -> None:
    client = await edge.client()
    await client.send(post(call("test.work", "s")))
    await edge.until(lambda: bool(edge.dispatcher.calls))
    await edge.edge.https_only(HOST.uuid, True)
    edge.dispatcher.gate.set()
    assert (await client.reply()).status == 200
    assert await client.at_end()
