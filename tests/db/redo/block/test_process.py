"""A database process whose redo log is a device: killed, moved to another machine, begun with rows of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.db import service as db_service
from services.db.redo.block.log import BlockRedoLog
from shared.bus.contract import Empty
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, ConfigError
from shared.contracts.db import DB_STATUS, SNAPSHOT, TRANSACT, Change, SnapshotRequest, Transact, Update
from shared.errors import ApiError
from shared.redo_blocks.layout import UPSTREAM
from shared.service import Service
from tests.api.harness import QUICK, kill
from tests.db import rows
from tests.db.redo.block import original
from tests.support.faulty_disk import Fault, FaultyDisk


class ProcessDisk(FaultyDisk):
    """Closes what is open, and so unlocks it, when the process is gone: here it is none of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._open: set[int] = set()

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        descriptor = super().open(path, flags, mode)
        self._open.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        super().close(descriptor)

    @property
    def descriptors(self) -> list[int]:
        return list(self._open)

    def release(self) -> None:
        for descriptor in list(self._open):
            self.close(descriptor)


class Machine:
    """One that runs the database process, on the bus in memory. `folder`: its local disk."""

    def __init__(self, folder: Path, device: Path, redo_log: str = "block") -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._options = {"redo_log": redo_log, **({"redo_log_device": str(device)} if redo_log == "block" else {})}
        self._broker = MemoryBroker()
        self.disk = ProcessDisk()

    async def start(self) -> Machine:
        config = Config(
            service="db", state_dir=str(self._folder), bus=BusConfig(url="memory:"), hosts=[], options=self._options
        )
        self.service = Service(config, await self._broker.connect("db", QUICK))
        await db_service.setup(self.service, self.disk)
        await self.service.open_queues()
        self.client = await self._broker.connect("client", QUICK)
        return self

    async def transact(self, *changes: Change) -> int:
        return (await self.client.call(TRANSACT, Transact(changes=list(changes)))).generation

    async def names(self, cls: str = "network") -> dict[str, str]:
        page = await self.client.call(SNAPSHOT, SnapshotRequest())
        assert page.pages == 1
        return {row.ref: row.fields["name_label"] for row in page.rows if row.cls == cls}

    async def kill(self) -> None:
        await self.client.close()
        await kill(self.service)
        self.disk.release()

    async def stop(self) -> None:
        await self.client.close()
        await self.service.close()
        self.disk.release()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A blank one, with holes: quicker than what the log would make."""
    with (tmp_path / "device").open("wb") as file:
        file.truncate(UPSTREAM.size)
    return tmp_path / "device"


@pytest.fixture
async def machine(tmp_path: Path, device: Path) -> AsyncIterator[Machine]:
    made = await Machine(tmp_path / "one", device).start()
    yield made
    await made.stop()


def on_device(device: Path) -> dict[str, str]:
    """As the original would read it."""
    found = original.read(device.read_bytes())
    assert found is not None
    assert not found.error
    return {ref: row["name_label"] for (cls, ref), row in found.rows.items() if cls == "network"}


async def test_what_was_answered_is_on_the_device_and_a_killed_process_forgets_nothing(
    machine: Machine, device: Path
) -> None:
    network, task = rows.network("a"), rows.task()
    await machine.transact(network)
    await machine.transact(task)
    await machine.transact(Update(cls="network", ref=network.ref, fields={"name_label": "b", "tags": ["x"]}))
    assert on_device(device) == {network.ref: "b"}
    await machine.kill()
    await machine.start()
    assert await machine.names() == {network.ref: "b"}
    assert task.ref in await machine.names("task")
    status = await machine.client.call(DB_STATUS, Empty())
    assert status.redo_log == "block"
    assert status.healthy


async def test_another_machine_goes_on_from_the_device(machine: Machine, device: Path, tmp_path: Path) -> None:
    network = rows.network("a")
    await machine.transact(network)
    generation = await machine.transact(Update(cls="network", ref=network.ref, fields={"name_label": "b"}))
    await machine.transact(rows.task())
    await machine.kill()
    other = await Machine(tmp_path / "two", device).start()
    try:
        assert await other.names() == {network.ref: "b"}
        assert await other.names("task") == {}
        assert await other.transact(rows.network("c")) > generation
    finally:
        await other.stop()
    assert sorted(on_device(device).values()) == ["b", "c"]
    await machine.start()
    assert sorted((await machine.names()).values()) == ["b", "c"]


async def test_a_pool_that_had_another_log_writes_all_its_rows_to_the_device_first(
    tmp_path: Path, device: Path
) -> None:
    before = await Machine(tmp_path / "one", device, "file").start()
    network = rows.network("a")
    await before.transact(network)
    await before.stop()
    after = await Machine(tmp_path / "one", device).start()
    other = rows.network("b")
    try:
        await after.transact(other)
        assert on_device(device) == {network.ref: "a", other.ref: "b"}
    finally:
        await after.stop()


async def test_a_device_that_fails_refuses_and_goes_on_later(machine: Machine, device: Path) -> None:
    network = rows.network("a")
    await machine.transact(network)
    change = Update(cls="network", ref=network.ref, fields={"name_label": "b"})
    machine.disk.faults = [Fault("sync", times=3)]
    with pytest.raises(ApiError, match="cannot be written"):
        await machine.transact(change)
    assert not (await machine.client.call(DB_STATUS, Empty())).healthy
    assert await machine.names() == {network.ref: "a"}
    machine.disk.faults = []
    await machine.transact(change)
    assert (await machine.client.call(DB_STATUS, Empty())).healthy
    assert on_device(device) == {network.ref: "b"}


async def test_a_checkpoint_at_the_end_leaves_nothing_to_replay(machine: Machine, device: Path) -> None:
    network = rows.network("a")
    await machine.transact(network)
    await machine.stop()
    log = BlockRedoLog(device)
    found = log.recover()
    log.close()
    assert found.records == []
    assert [row.ref for row in found.rows] == [network.ref]
    await machine.start()
    assert await machine.names() == {network.ref: "a"}


async def test_a_device_must_be_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "one", tmp_path / "device")
    machine._options.pop("redo_log_device")
    with pytest.raises(ConfigError, match="redo_log_device"):
        await machine.start()
