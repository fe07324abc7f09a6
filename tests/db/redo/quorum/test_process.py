"""A database process whose commits are confirmed by a broker: killed, moved to a machine that has nothing, cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.db import service as db_service
from services.db.recovery import RESERVE
from shared.bus.contract import Empty
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, ConfigError
from shared.contracts.db import DB_STATUS, SNAPSHOT, TRANSACT, Change, SnapshotRequest, Transact, Update
from shared.errors import ApiError
from shared.service import Service
from tests.api.harness import QUICK, kill
from tests.db import rows
from tests.db.redo.quorum.conftest import Queue
from tests.db.redo.quorum.proxy import Proxy

pytestmark = pytest.mark.broker


class Machine:
    """One that runs the database process. Its bus is in memory, its log on the broker. `folder`: its local disk."""

    def __init__(self, folder: Path, url: str, queue: str) -> None:
        folder.mkdir(exist_ok=True)
        self._config = Config(
            service="db",
            state_dir=str(folder),
            bus=BusConfig(url=url),
            hosts=[],
            options={"redo_log": "quorum", "redo_log_queue": queue, "redo_log_confirm": 2.0},
        )
        self._broker = MemoryBroker()
        self.runs = False

    async def start(self) -> Machine:
        self.service = Service(self._config, await self._broker.connect("db", QUICK))
        await db_service.setup(self.service)
        await self.service.open_queues()
        self.client = await self._broker.connect("client", QUICK)
        self.runs = True
        return self

    async def transact(self, *changes: Change) -> int:
        return (await self.client.call(TRANSACT, Transact(changes=list(changes)))).generation

    async def names(self, cls: str = "network") -> dict[str, str]:
        page = await self.client.call(SNAPSHOT, SnapshotRequest())
        assert page.pages == 1
        return {row.ref: row.fields["name_label"] for row in page.rows if row.cls == cls}

    async def healthy(self) -> bool:
        return (await self.client.call(DB_STATUS, Empty())).healthy

    async def kill(self) -> None:
        self.runs = False
        await self.client.close()
        await kill(self.service)

    async def stop(self) -> None:
        self.runs = False
        await self.client.close()
        await self.service.close()


Machines = Callable[[str], Machine]


@pytest.fixture
async def machines(tmp_path: Path, queue: Queue) -> AsyncIterator[Machines]:
    """Each with a folder of its own; all on one log."""
    made: list[Machine] = []

    def machine(name: str, url: str = "") -> Machine:
        made.append(Machine(tmp_path / name, url or queue.url, queue.name))
        return made[-1]

    yield machine
    for each in made:
        if each.runs:
            await each.kill()


async def test_a_machine_that_has_nothing_goes_on_with_all_that_was_answered(machines: Machines) -> None:
    lost = await machines("lost").start()
    network, task = rows.network("a"), rows.task()
    await lost.transact(network)
    await lost.transact(task)
    last = await lost.transact(Update(cls="network", ref=network.ref, fields={"name_label": "b", "tags": ["x"]}))
    await lost.kill()
    new = await machines("new").start()
    assert await new.names() == {network.ref: "b"}
    assert await new.names("task") == {}, "what is volatile was on that machine only"
    again = rows.network("c")
    assert await new.transact(again) > last + 2 * RESERVE
    await new.kill()
    third = await machines("third").start()
    assert await third.names() == {network.ref: "b", again.ref: "c"}


async def test_a_killed_process_forgets_nothing_that_is_volatile_either(machines: Machines) -> None:
    machine = await machines("one").start()
    network, task = rows.network("a"), rows.task()
    await machine.transact(network)
    await machine.transact(task)
    await machine.kill()
    await machine.start()
    assert await machine.names() == {network.ref: "a"}
    assert task.ref in await machine.names("task")


async def test_a_process_that_was_stopped_leaves_its_rows_to_other_machines(machines: Machines) -> None:
    machine = await machines("one").start()
    made = [rows.network(str(number)) for number in range(300)]
    await machine.transact(*made)
    await machine.stop()
    other = await machines("other").start()
    assert len(await other.names()) == 300
    await other.transact(rows.network("more"))
    await other.kill()
    assert len(await (await machines("third").start()).names()) == 301


async def test_the_former_coordinator_is_shut_out_and_acknowledges_nothing(machines: Machines) -> None:
    old = await machines("old").start()
    first = rows.network("first")
    await old.transact(first)
    new = await machines("new").start()
    with pytest.raises(ApiError, match="fenced by term 2"):
        await old.transact(rows.network("lost"))
    assert await old.names() == {first.ref: "first"}
    second = rows.network("second")
    await new.transact(second)
    assert await new.names() == {first.ref: "first", second.ref: "second"}


async def test_what_cannot_be_confirmed_is_refused_until_the_broker_is_there_again(
    machines: Machines, queue: Queue, tmp_path: Path
) -> None:
    proxy: Proxy = await asyncio.to_thread(queue.proxy)
    machine = await Machine(tmp_path / "one", proxy.url, queue.name).start()
    first, lost, later = rows.network("first"), rows.network("lost"), rows.network("later")
    await machine.transact(first)
    proxy.hold(requests=True, answers=True)
    with pytest.raises(ApiError, match="has not answered"):
        await machine.transact(lost)
    assert not await machine.healthy()
    proxy.cut()
    proxy.release()
    await machine.transact(later)
    assert await machine.healthy()
    await machine.kill()
    assert await (await machines("new").start()).names() == {first.ref: "first", later.ref: "later"}


async def test_a_queue_that_was_deleted_gets_all_rows_before_the_next_commit_is_answered(
    machines: Machines, queue: Queue
) -> None:
    machine = await machines("one").start()
    first, later = rows.network("first"), rows.network("later")
    await machine.transact(first)
    channel = await asyncio.to_thread(queue.channel)
    await asyncio.to_thread(channel.queue_delete, queue.name)
    await asyncio.to_thread(channel.connection.close)
    with pytest.raises(ApiError, match="has no queue"):
        await machine.transact(rows.network("lost"))
    await machine.transact(later)
    await machine.kill()
    assert await (await machines("new").start()).names() == {first.ref: "first", later.ref: "later"}


async def test_the_option_wants_a_broker(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only on a bus over RabbitMQ"):
        await Machine(tmp_path, "memory:", "q").start()
