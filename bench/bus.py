"""`python -m bench.bus`: request and reply over the bus, beside the same over pika alone.

Two processes and one RabbitMQ node (a private one; AMQP_URL: that). The bare side is what one would write by hand with
pika's asyncio adapter: direct reply-to, a correlation id, no acknowledgements, no JSON. Both sides' measurements
alternate in one run, so that the machine's moods hit both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pika
import uvloop
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from bench.__main__ import table
from bench.result import Result
from pool import rabbitmq
from shared.bus import amqp
from shared.bus.contract import Method, Record, Scope

ROUNDS = 12
CALLS = 150
"""One after the other, in one round of one side."""
IN_FLIGHT = 64
STORM = 1500
"""Calls in one round of one side with `IN_FLIGHT` at a time."""
STORMS = 4
BARE_QUEUE = "bench-bare"
BARE = "bare pika"
TEXT = "x" * 100


class Text(Record, frozen=True):
    text: str


ECHO = Method("bench", "echo", Text, Text, "Gives back what it got.", Scope.POOL)

Call = Callable[[], Awaitable[object]]


class Bare:
    """The least code that makes a request and gets its reply."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._number = 0
        channel.basic_consume("amq.rabbitmq.reply-to", self._answered, auto_ack=True)

    @classmethod
    async def connect(cls, url: str) -> Bare:
        return cls(await bare_channel(url))

    async def call(self) -> bytes:
        self._number += 1
        id = str(self._number)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[id] = future
        properties = BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id=id)
        self._channel.basic_publish("", BARE_QUEUE, TEXT.encode(), properties)
        return await future

    def _answered(self, _: Channel, __: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._waiting.pop(properties.correlation_id or "").set_result(body)


async def bare_channel(url: str) -> Channel:
    opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
    AsyncioConnection(
        pika.URLParameters(url),
        on_open_callback=lambda connection: connection.channel(on_open_callback=opened.set_result),
        on_open_error_callback=lambda _, error: opened.set_exception(error),
    )
    return await opened


async def serve(url: str) -> None:
    """The other process: both servers."""
    channel = await bare_channel(url)

    def answer(channel: Channel, _: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        reply = BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to or "", body, reply)

    channel.queue_declare(BARE_QUEUE, exclusive=True, auto_delete=True)
    channel.basic_consume(BARE_QUEUE, answer, auto_ack=True)
    bus = await amqp.connect(url, "bench-server")

    async def echo(request: Text) -> Text:
        return request

    await bus.serve(ECHO, echo)
    await bus.start_consuming("bench")
    print("ready", flush=True)
    await asyncio.Event().wait()


async def measure(url: str) -> list[Result]:
    bare = await Bare.connect(url)
    bus = await amqp.connect(url, "bench-client")
    request = Text(text=TEXT)

    async def call() -> Text:
        return await bus.call(ECHO, request)

    sides: dict[str, Call] = {"bus": call, "bare": bare.call}
    for side in sides.values():
        await one_by_one(side, CALLS)
    times: dict[str, list[float]] = {name: [] for name in sides}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            times[name] += await one_by_one(side, CALLS)
    for _ in range(STORMS):
        for name, side in sides.items():
            rates[name].append(await storm(side, STORM))
    await bus.close()
    ms = {name: [quantile(values, share) * 1000 for share in (0.5, 0.99)] for name, values in times.items()}
    rate = {name: statistics.median(values) for name, values in rates.items()}
    return [
        Result(
            name="bus call p50", value=ms["bus"][0], unit="ms", reference=ms["bare"][0], aim=1.5, reference_name=BARE
        ),
        Result(name="bus call p99", value=ms["bus"][1], unit="ms", reference=ms["bare"][1], reference_name=BARE),
        Result(
            name=f"bus calls, {IN_FLIGHT} in flight",
            value=rate["bus"],
            unit="/s",
            reference=rate["bare"],
            better="more",
            reference_name=BARE,
        ),
    ]


async def one_by_one(call: Call, count: int) -> list[float]:
    """Seconds of each."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        await call()
        times.append(time.perf_counter() - begun)
    return times


async def storm(call: Call, count: int) -> float:
    """Calls per second."""
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            await call()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - begun)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


@contextlib.contextmanager
def broker() -> Iterator[str]:
    if given := os.environ.get("AMQP_URL", ""):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="bench-bus-") as folder:
        node = rabbitmq.start(Path(folder))
        try:
            yield node.url
        finally:
            rabbitmq.stop(node)


def main() -> list[Result]:
    with broker() as url:
        server = subprocess.Popen([sys.executable, "-m", "bench.bus", "--serve", url], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            if server.stdout.readline() != b"ready\n":
                raise RuntimeError("the server process did not start")
            return uvloop.run(measure(url))
        finally:
            server.kill()
            server.communicate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(serve(sys.argv[2]))
    else:
        print(table(main()))
