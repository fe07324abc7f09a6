"""On the coordinator: one reader that stores every alert as a message, one for each consumer outside the pool."""

from __future__ import annotations

import asyncio
import logging

from services.alerts.messages import MessageSink
from services.alerts.options import Options
from services.alerts.reader import Counters, Reader
from services.alerts.sink import Sink
from services.alerts.webhook import WebhookSink
from shared.bus.contract import Empty
from shared.contracts.alerts import CONSUMERS, Consumer, Consumers
from shared.service import Service

log = logging.getLogger("alerts")

PATIENCE = 5.0
"""Seconds that a reader gets to end; one that is still delivering then is left, and its alert comes again."""


async def deliver(service: Service, given: Options) -> None:
    """Until the service stops. Raises `ConfigError` for a consumer that cannot work."""
    sinks: list[Sink] = [
        MessageSink(service.bus, asyncio.get_running_loop()),
        *(WebhookSink(hook, service.config.pool) for hook in given.consumers),
    ]
    counters = Counters(service.registry)
    readers = [
        Reader(service.config.bus.url, f"{given.prefix}.{sink.kind}.{sink.name}", sink, counters) for sink in sinks
    ]

    async def consumers(_: Empty) -> Consumers:
        return Consumers(consumers=[shown(reader) for reader in readers])

    async def stop() -> None:
        for reader in readers:
            reader.stop()
        await asyncio.gather(*(asyncio.to_thread(reader.join, PATIENCE) for reader in readers))

    await service.serve(CONSUMERS, consumers)
    service.on_stop(stop)
    for reader in readers:
        reader.start()
    for reader in readers:
        while not reader.opened.is_set():
            await asyncio.to_thread(reader.opened.wait, 1.0)
    log.info("alerts go to %s", ", ".join(sink.name for sink in sinks))


def shown(reader: Reader) -> Consumer:
    sink, tally = reader.sink, reader.tally
    return Consumer(name=sink.name, kind=sink.kind, delivered=tally.delivered, failed=tally.failed, state=tally.state)
