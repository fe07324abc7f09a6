"""kill -9 of the database as it is installed, while clients write. (`crash` kills it in more ways, and more often.)"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.db.recovery import boot_id, restore
from services.db.redo.file import FileRedoLog
from shared.bus import amqp
from shared.bus.interface import Bus
from shared.contracts.db import SNAPSHOT, TRANSACT, Create, Equals, SnapshotRequest, Transact, Update
from shared.errors import ApiError
from shared.replica import Replica
from tests.db import rows, soundness

ROUNDS = 4
WRITERS = 4


class DatabaseProcess:
    """`python -m services.db` on a folder, started again after each kill."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self._config = folder / "db.toml"
        self._config.write_text(
            f'service = "db"\nstate_dir = {json.dumps(str(folder / "db"))}\n[bus]\nurl = {json.dumps(url)}\n'
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        log = (self.folder / "db.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.db", "--config", str(self._config), stderr=log, stdout=log
        )

    async def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def ended(self) -> int:
        """Its exit status, when it has ended by itself."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


@pytest.fixture
async def database(tmp_path: Path, broker_url: str) -> AsyncIterator[DatabaseProcess]:
    process = DatabaseProcess(tmp_path, broker_url)
    await process.start()
    yield process
    await process.stop()


@pytest.fixture
async def bus(broker_url: str) -> AsyncIterator[Bus]:
    connected = await amqp.connect(broker_url, name="test")
    yield connected
    await connected.close()


class Writer:
    """Counts up a row of its own, two fields in each transaction, and remembers what was acknowledged."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._row: Create = rows.network("0", name_description="0")
        self.ref = self._row.ref
        self.acknowledged = 0
        self.generation = 0

    async def create(self) -> None:
        await self._bus.call(TRANSACT, Transact(changes=[self._row]), timeout=30)

    async def run(self) -> None:
        while True:
            number = str(self.acknowledged + 1)
            fields = {"name_label": number, "name_description": number}
            given = Equals(cls="network", ref=self.ref, field="name_label", value=str(self.acknowledged))
            change = Update(cls="network", ref=self.ref, fields=fields)
            committed = await self._bus.call(TRANSACT, Transact(changes=[change], preconditions=[given]), timeout=30)
            assert committed.generation > self.generation
            self.generation = committed.generation
            self.acknowledged += 1


@pytest.mark.broker
@pytest.mark.timeout(170)
async def test_no_acknowledged_write_is_lost_in_four_kills(database: DatabaseProcess, bus: Bus, tmp_path: Path) -> None:
    writers = [Writer(bus) for _ in range(WRITERS)]
    for writer in writers:
        await writer.create()
    replica = Replica(bus)
    following = asyncio.create_task(replica.run())
    work = [asyncio.create_task(writer.run()) for writer in writers]
    for _ in range(ROUNDS):
        before = [writer.acknowledged for writer in writers]
        while not all(writer.acknowledged > count for writer, count in zip(writers, before, strict=True)):
            for task in work:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)
        await asyncio.sleep(random.uniform(0, 0.1))
        await database.kill()
        acknowledged = [writer.acknowledged for writer in writers]
        on_disk = restore(FileRedoLog(tmp_path / "db" / "redo", boot_id()).recover(), boot_id())
        soundness.assert_sound(on_disk)
        for writer, count in zip(writers, acknowledged, strict=True):
            row = on_disk.row("network", writer.ref)
            assert row is not None
            assert int(row["name_label"]) in (count, count + 1), "an acknowledged write is missing"
            assert row["name_label"] == row["name_description"], "half a transaction is there"
            assert on_disk.generation >= writer.generation
        await database.start()
    for task in work:
        task.cancel()
    results = await asyncio.gather(*work, return_exceptions=True)
    assert not [r for r in results if isinstance(r, ApiError)], "a writer saw an error although the database came back"
    page = await bus.call(SNAPSHOT, SnapshotRequest(), timeout=30)
    assert page.term > ROUNDS
    await asyncio.wait_for(replica.wait_ready(), 10)
    await replica.wait_generation(page.generation, 10)
    for writer in writers:
        primary = next(item for item in page.rows if item.ref == writer.ref)
        followed = replica.store.row("network", writer.ref)
        assert followed is not None
        assert followed["name_label"] == primary.fields["name_label"]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
