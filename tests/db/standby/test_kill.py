"""kill -9 of a primary under load: a standby takes over, and the old one comes back as a standby."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.bus import amqp
from shared.bus.endpoint import Endpoint
from shared.contracts import db as contract
from tests.db.soundness import assert_sound
from tests.db.standby.cluster import caught_up, contents, fetch
from tests.db.standby.processes import QUICK, Hosts, Writer, assert_kept, more, working

WRITERS = 8

pytestmark = pytest.mark.broker


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    hosts = Hosts(tmp_path, 2)
    yield hosts
    await hosts.stop()


@pytest.fixture
async def bus(broker_url: str) -> AsyncIterator[Endpoint]:
    connected = await amqp.connect(broker_url, "test", QUICK)
    yield connected
    await connected.close()


@pytest.mark.timeout(120)
async def test_nothing_acknowledged_is_lost_when_a_standby_must_have_it(
    hosts: Hosts, bus: Endpoint, broker_url: str
) -> None:
    options: dict[str, Any] = {"synchronous_standbys": 1, "synchronous_timeout": 20.0}
    for number in range(2):
        await hosts.run(number, broker_url, **options)
    writers = [Writer(bus, hosts) for _ in range(WRITERS)]
    for writer in writers:
        await writer.create()
    await caught_up(bus, hosts.uuids[1:])
    async with working(writers):
        await more(writers, 20)
        await hosts.kill(0)
        acknowledged = [writer.acknowledged for writer in writers]
        began = time.monotonic()
        promoted = await bus.call(contract.PROMOTE, contract.Promote(), host=hosts.uuids[1])
        took = time.monotonic() - began
        assert_kept(await fetch(bus, hosts.uuids[1]), writers, acknowledged)
        await hosts.run(0, broker_url, **options)
        await more(writers, 1)
    await caught_up(bus, hosts.uuids[:1])
    old, new = await fetch(bus, hosts.uuids[0]), await fetch(bus, hosts.uuids[1])
    assert contents(old) == contents(new)
    assert_sound(new)
    assert all(not writer.unknown for writer in writers), "every request reached the new primary"
    assert new.term >= promoted.term
    assert took < 2.0, f"the promotion took {took:.1f} s"
