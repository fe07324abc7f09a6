"""The two buses as the conformance suite sees them: connect, break a connection, look at the dead messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import pika

from shared.bus import amqp
from shared.bus.endpoint import Endpoint
from shared.bus.memory import MemoryBroker
from shared.bus.timing import Timing
from tests.bus.proxy import Proxy

QUICK = Timing(probe_first=0.3, probe_every=0.5, grace=1.5, settle=0.5, drain=0.5)


async def until(condition: Callable[[], object], timeout: float = 30.0) -> None:
    """For what has no event to wait for, such as a counter. Raises `TimeoutError`."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Wire(Protocol):
    async def connect(self, name: str, timing: Timing = QUICK) -> Endpoint: ...

    async def lose(self, bus: Endpoint) -> None:
        """Breaks the connection; returns when that was noticed."""

    async def dead(self, source: str) -> list[str]:
        """Why messages from that queue or binding could not be handled."""
        ...

    async def remove_queue(self, name: str) -> None: ...

    async def close(self) -> None: ...


class MemoryWire:
    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self._buses: list[Endpoint] = []

    async def connect(self, name: str, timing: Timing = QUICK) -> Endpoint:
        bus = await self.broker.connect(name, timing)
        self._buses.append(bus)
        return bus

    async def lose(self, bus: Endpoint) -> None:
        self.broker.disconnect(bus)

    async def dead(self, source: str) -> list[str]:
        return [message.reason for message in self.broker.dead if message.source == source]

    async def remove_queue(self, name: str) -> None:
        return

    async def close(self) -> None:
        for bus in self._buses:
            await bus.abandon()


class AmqpWire:
    """Each bus has its own way to the broker, so that it alone can be cut off."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._proxies: dict[Endpoint, Proxy] = {}

    async def connect(self, name: str, timing: Timing = QUICK) -> Endpoint:
        proxy = Proxy(self._url)
        await proxy.start()
        bus = await amqp.connect(proxy.url, name, timing)
        self._proxies[bus] = proxy
        return bus

    async def lose(self, bus: Endpoint) -> None:
        self._proxies[bus].cut()
        await until(lambda: not bus.connected)

    async def dead(self, source: str) -> list[str]:
        return await asyncio.to_thread(_dead_messages, self._url, source)

    async def remove_queue(self, name: str) -> None:
        await asyncio.to_thread(_remove_queue, self._url, name)

    async def close(self) -> None:
        for bus, proxy in self._proxies.items():
            await bus.abandon()
            await proxy.close()


def _dead_messages(url: str, source: str) -> list[str]:
    """Takes out what came from that source and leaves the rest."""
    reasons: list[str] = []
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        while True:
            method, properties, _ = channel.basic_get("dead")
            if method is None:
                return reasons  # those not acknowledged go back
            headers = properties.headers or {}
            if headers.get("source") == source:
                reasons.append(str(headers["reason"]))
                channel.basic_ack(method.delivery_tag)


def _remove_queue(url: str, name: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(name)
