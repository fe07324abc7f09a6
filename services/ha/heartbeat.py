"""Sending heartbeats: one timer for all hosts of a process, spread over the interval."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence

from shared.bus.interface import Bus, BusError
from shared.contracts.ha import HEARTBEAT, Heartbeat

log = logging.getLogger("ha.heartbeat")


async def send(bus: Bus, hosts: Sequence[str], interval: float) -> None:
    """Until cancelled. A heartbeat that cannot be sent is lost, never sent late: a late one would tell an untruth."""
    boot = str(uuid.uuid4())
    loop = asyncio.get_running_loop()
    begin, turn, silent = loop.time(), 0, False
    while True:
        seq, index = divmod(turn, len(hosts))
        host = hosts[index]
        beat = Heartbeat(host=host, boot=boot, seq=seq, interval=interval, time=time.time())
        try:
            if bus.connected:
                await bus.publish(HEARTBEAT, beat, uuid=host)
            if silent is bus.connected:
                silent = not bus.connected
                log.log(logging.WARNING if silent else logging.INFO, "heartbeats %s", "stop" if silent else "go on")
        except BusError as error:
            log.warning("a heartbeat of %s is lost: %s", host, error)
        turn += 1
        due = begin + turn * interval / len(hosts)
        late = loop.time() - due
        if late > interval:  # the process was stopped for a while: go on from here
            begin += late
        await asyncio.sleep(max(0.0, -late))
