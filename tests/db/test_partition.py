"""A primary that is cut off from the broker, while a standby is promoted, and comes back: in network namespaces."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shared.bus import amqp
from shared.bus.contract import Empty
from shared.bus.endpoint import Endpoint
from shared.bus.interface import HostOffline
from shared.contracts import db as contract
from shared.contracts.alerts import ALERT, Alert
from shared.replica import Replica
from tests.db import rows
from tests.db.soundness import assert_sound
from tests.db.standby.cluster import caught_up, contents, fetch, until
from tests.db.standby.links import Links
from tests.db.standby.processes import QUICK, Hosts, Writer, assert_kept, more, working

pytestmark = [pytest.mark.root, pytest.mark.broker, pytest.mark.timeout(120)]

WRITERS = 8
OLD, NEW, OTHER = 0, 1, 2


@pytest.fixture
def links() -> Iterator[Links]:
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    links = Links(3)
    try:
        links.make()
        yield links
    finally:
        links.remove()


@pytest.fixture
async def hosts(tmp_path: Path, links: Links, broker_url: str) -> AsyncIterator[Hosts]:
    hosts = Hosts(tmp_path, 3)
    async with AsyncExitStack() as closing:
        await closing.enter_async_context(links.relay(broker_url))
        closing.push_async_callback(hosts.stop)
        yield hosts


@pytest.fixture
async def bus(broker_url: str) -> AsyncIterator[Endpoint]:
    connected = await amqp.connect(broker_url, "test", QUICK)
    yield connected
    await connected.close()


async def start(hosts: Hosts, links: Links, broker: str, bus: Endpoint, **options: object) -> list[Writer]:
    for number in (OLD, NEW, OTHER):
        await hosts.run(number, links.url(number, broker), within=links.within(number), **options)
    writers = [Writer(bus, hosts) for _ in range(WRITERS)]
    for writer in writers:
        await writer.create()
    await caught_up(bus, [hosts.uuids[NEW], hosts.uuids[OTHER]])
    return writers


async def commit_unheard(hosts: Hosts, broker: str) -> None:
    """The old primary, which cannot say anything, makes a commit durable; whoever asked for it is gone."""
    doomed = await amqp.connect(broker, "doomed", QUICK)
    change = contract.Transact(changes=[rows.network("unheard")])
    asking = asyncio.create_task(doomed.call(contract.TRANSACT, change, timeout=30))

    async def durable() -> bool:
        return any(b"unheard" in path.read_bytes() for path in hosts.folder.glob(f"host{OLD}/db/redo/redo-*"))

    try:
        await until(durable)
    finally:
        await doomed.abandon()
        await asyncio.gather(asking, return_exceptions=True)


async def back(bus: Endpoint, host: str) -> None:
    """The host's process has found out that it was replaced, and stands by."""

    async def there() -> bool:
        try:
            return (await bus.call(contract.DB_ROLE, Empty(), host=host, timeout=1.0)).role == "standby"
        except HostOffline:
            return False

    await until(there, 30.0)


async def test_a_primary_that_was_cut_off_comes_back_fenced_and_tells_what_was_left_out(
    hosts: Hosts, links: Links, bus: Endpoint, broker_url: str
) -> None:
    alerts: list[Alert] = []
    await bus.subscribe(ALERT, lambda alert, _: alerts.append(alert))
    writers = await start(hosts, links, broker_url, bus)
    replica = Replica(bus)
    following = asyncio.create_task(replica.run())
    try:
        async with working(writers):
            await more(writers, 10)
            links.deafen(OLD)
            await commit_unheard(hosts, broker_url)
            links.cut(OLD)
            acknowledged = [writer.acknowledged for writer in writers]
            began = time.monotonic()
            promoted = await bus.call(contract.PROMOTE, contract.Promote(), host=hosts.uuids[NEW])
            took = time.monotonic() - began
            assert_kept(await fetch(bus, hosts.uuids[NEW]), writers, acknowledged)
            await more(writers, 5)
            links.heal(OLD)
            await back(bus, hosts.uuids[OLD])
            await more(writers, 5)
        await caught_up(bus, [hosts.uuids[OLD], hosts.uuids[OTHER]])
        stores = [await fetch(bus, host) for host in hosts.uuids]
        assert contents(stores[OLD]) == contents(stores[NEW]) == contents(stores[OTHER])
        assert stores[OLD].term == promoted.term
        assert_sound(stores[NEW])
        assert_kept(stores[NEW], writers, [writer.acknowledged for writer in writers])
        await replica.wait_generation(stores[NEW].generation, 10)
        assert contents(replica.store) == contents(stores[NEW])
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    told = [json.loads(path.read_text()) for path in (hosts.folder / f"host{OLD}" / "db").glob("unmerged-*.json")]
    lost = [change["name"] for report in told for commit in report["commits"] for change in commit["changes"]]
    assert lost == ["unheard"], "what the writers sent again is not lost: the new primary has it by the same request"
    assert {alert.name for alert in alerts} == {"DATABASE_WRITES_UNMERGED"}
    assert took < 2.0, f"the promotion took {took:.1f} s"


async def test_of_a_pool_whose_commits_wait_for_standbys_a_partition_loses_nothing_that_was_answered(
    hosts: Hosts, links: Links, bus: Endpoint, broker_url: str
) -> None:
    writers = await start(
        hosts, links, broker_url, bus, synchronous_standbys=1, synchronous_timeout=60.0, when_standbys_missing="refuse"
    )
    async with working(writers):
        await more(writers, 10)
        links.cut(OLD)
        acknowledged = [writer.acknowledged for writer in writers]
        await bus.call(contract.PROMOTE, contract.Promote(), host=hosts.uuids[NEW])
        assert_kept(await fetch(bus, hosts.uuids[NEW]), writers, acknowledged)
        await more(writers, 5)
        links.heal(OLD)
        await back(bus, hosts.uuids[OLD])
        await more(writers, 5)
    await caught_up(bus, [hosts.uuids[OLD], hosts.uuids[OTHER]])
    stores = [await fetch(bus, host) for host in hosts.uuids]
    assert contents(stores[OLD]) == contents(stores[NEW]) == contents(stores[OTHER])
    assert_kept(stores[NEW], writers, [writer.acknowledged for writer in writers])
