"""What only the real broker can show: foreign messages, refused credentials, a broker short of memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import orjson
import pika
import pytest
from pika import frame, spec

from shared.bus import amqp
from shared.bus.amqp_consumers import QUEUE_EXPIRES
from shared.bus.endpoint import Endpoint
from shared.bus.interface import DeadlineExceeded
from tests.bus.contract import Contract, Number
from tests.bus.proxy import Proxy
from tests.bus.wire import QUICK, AmqpWire, until

pytestmark = pytest.mark.broker


@pytest.fixture
async def wire(broker_url: str) -> AsyncIterator[AmqpWire]:
    made = AmqpWire(broker_url)
    yield made
    await made.close()


async def add(request: Number) -> Number:
    return Number(n=request.n + 1)


def send_raw(url: str, queue: str, body: bytes) -> bytes:
    """A request made by hand; returns the body of the answer."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        replies = channel.consume("amq.rabbitmq.reply-to", auto_ack=True, inactivity_timeout=5)
        next(channel.consume("amq.rabbitmq.reply-to", auto_ack=True, inactivity_timeout=0.01))
        properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="by-hand")
        channel.basic_publish("rpc", queue, body, properties, mandatory=True)
        _, _, answer = next(replies)
        assert isinstance(answer, bytes)
        return answer


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"[]", b"{", b'{"v":1}', b'{"v":2,"kind":"probe","id":"x"}', b'{"v":1,"kind":"surprise"}'],
)
async def test_a_body_that_is_no_request_is_answered_and_kept_as_dead(
    wire: AmqpWire, contract: Contract, broker_url: str, body: bytes
) -> None:
    server = await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    answer = orjson.loads(await asyncio.to_thread(send_raw, broker_url, contract.service, body))
    assert answer["kind"] == "failure"
    assert answer["code"] == "INTERNAL_ERROR"
    assert len(await wire.dead(contract.service)) == 1


async def test_a_request_made_by_hand_is_served(wire: AmqpWire, contract: Contract, broker_url: str) -> None:
    """The documented form, as a program in another language would write it."""
    server = await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    request = {"v": 1, "kind": "call", "id": "by-hand", "method": "add", "timeout": 5, "body": {"n": 1}}
    answer = orjson.loads(await asyncio.to_thread(send_raw, broker_url, contract.service, orjson.dumps(request)))
    assert answer["kind"] == "result"
    assert answer["body"] == {"n": 2}


async def test_a_request_that_comes_twice_runs_once(wire: AmqpWire, contract: Contract, broker_url: str) -> None:
    server = await wire.connect("server")
    ran: list[int] = []

    async def note(request: Number) -> Number:
        ran.append(request.n)
        return Number(n=len(ran))

    await server.serve(contract.add, note)
    await server.start_consuming(contract.service)
    call = {"v": 1, "kind": "call", "id": "by-hand", "method": "add", "timeout": 5, "body": {"n": 1}}
    for request in (call, {**call, "resent": True}, {"v": 1, "kind": "probe", "id": "by-hand"}):
        answer = orjson.loads(await asyncio.to_thread(send_raw, broker_url, contract.service, orjson.dumps(request)))
        assert answer["body"] == {"n": 1}
    assert ran == [1]
    assert server.metrics()["duplicates"] == 1


async def test_a_request_that_expired_in_the_queue_is_not_run(
    wire: AmqpWire, contract: Contract, broker_url: str
) -> None:
    def declare() -> pika.BlockingConnection:
        connection = pika.BlockingConnection(pika.URLParameters(broker_url))
        channel = connection.channel()
        arguments = {"x-expires": QUEUE_EXPIRES}
        channel.queue_declare(contract.service, auto_delete=True, arguments=arguments)
        channel.queue_bind(contract.service, "rpc", contract.service)
        return connection

    client, server = await wire.connect("client"), await wire.connect("server")
    connection = await asyncio.to_thread(declare)  # a queue that nobody consumes yet
    with pytest.raises(DeadlineExceeded):
        await client.call(contract.add, Number(n=1), timeout=0.2)
    ran: list[int] = []

    async def note(request: Number) -> Number:
        ran.append(request.n)
        return request

    await server.serve(contract.add, note)
    await server.start_consuming(contract.service)
    await client.call(contract.add, Number(n=2))
    assert ran == [2]
    await asyncio.to_thread(connection.close)


async def test_a_queue_that_is_deleted_under_its_consumer_comes_back(
    wire: AmqpWire, contract: Contract, broker_url: str
) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.patient, add)
    await server.start_consuming(contract.service)
    await wire.remove_queue(contract.service)
    assert await client.call(contract.patient, Number(n=1), timeout=5) == Number(n=2)


async def test_nothing_is_left_in_the_broker(wire: AmqpWire, contract: Contract, broker_url: str) -> None:
    def exists() -> bool:
        with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
            try:
                connection.channel().queue_declare(contract.service, passive=True)
            except pika.exceptions.ChannelClosedByBroker:
                return False
            return True

    server = await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    assert await asyncio.to_thread(exists)
    await server.close()
    assert not await asyncio.to_thread(exists)


async def test_refused_credentials_are_told_and_tried_again(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    parts = urlsplit(broker_url)
    wrong = urlunsplit(parts._replace(netloc=f"nobody:wrong@{parts.hostname}:{parts.port}"))
    with caplog.at_level(logging.WARNING, "bus"):
        connecting = asyncio.create_task(amqp.connect(wrong, "test"))
        await until(lambda: caplog.records)
        await asyncio.sleep(0.5)
        assert not connecting.done()
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "refused" in message
    assert "wrong" not in message


async def test_a_broker_that_is_not_there_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "bus"):
        connecting = asyncio.create_task(amqp.connect("amqp://u:p@127.0.0.1:1/v", "test"))
        await until(lambda: caplog.records)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
    assert "Connection refused" in caplog.text
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_url_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="amqps://"):
        await amqp.connect("http://127.0.0.1/")


async def test_while_the_broker_is_short_of_memory_calls_and_events_wait(
    wire: AmqpWire, contract: Contract, broker_url: str
) -> None:
    server = await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await server.subscribe(contract.event, lambda payload, _: heard.set_result(payload.n))
    proxy = Proxy(broker_url)
    await proxy.start()
    client = await amqp.connect(proxy.url, "client", QUICK)
    try:
        proxy.inject(frame.Method(0, spec.Connection.Blocked("low on memory")).marshal())
        await until(lambda: not client.connected)
        call = asyncio.create_task(client.call(contract.add, Number(n=1), timeout=10))
        await client.publish(contract.event, Number(n=3), what="a", which="b")
        await asyncio.sleep(0.2)
        assert not call.done()
        assert not heard.done()
        proxy.inject(frame.Method(0, spec.Connection.Unblocked()).marshal())
        assert await call == Number(n=2)
        assert await asyncio.wait_for(heard, 30) == 3
        assert client.metrics()["reconnects"] == 0
    finally:
        await client.close()
        await proxy.close()


async def test_a_connection_that_went_silent_is_given_up(wire: AmqpWire, contract: Contract, broker_url: str) -> None:
    """A cable that was cut: nobody says that the connection has ended."""
    server = await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    proxy = Proxy(broker_url)
    await proxy.start()
    client: Endpoint = await amqp.connect(proxy.url, "client", replace(QUICK, heartbeat=1))
    try:
        proxy.freeze()
        call = asyncio.create_task(client.call(contract.add, Number(n=1), timeout=20))
        await until(lambda: not client.connected, timeout=12)
        proxy.cut()
        proxy.thaw()
        assert await call == Number(n=2)
    finally:
        await client.close()
        await proxy.close()
