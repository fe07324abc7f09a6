"""Database processes of a pool's hosts, each a process of its own over RabbitMQ, and clients that write to them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from shared.bus.interface import Bus
from shared.bus.timing import Timing
from shared.contracts import db as contract
from shared.errors import ApiError
from shared.store import Store
from tests.db import rows
from tests.db.standby.cluster import described, until

QUICK = Timing(probe_first=0.5, probe_every=0.5)
"""Of clients, which ask soon what became of a request whose answer does not come."""


class Hosts:
    """`uuids`: in order; the first is primary at first."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.uuids = sorted(str(uuid.uuid4()) for _ in range(count))
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def run(self, number: int, url: str, *, within: tuple[str, ...] = (), **options: object) -> None:
        """Starts, or starts again, the process of that host. `within`: a command that is to run it."""
        folder = self.folder / f"host{number}"
        folder.mkdir(exist_ok=True)
        (folder / "seed.json").write_bytes(described(self.uuids))
        host = {"uuid": self.uuids[number], "name": f"host{number}", "address": f"127.0.0.{number + 11}"}
        settings = {"seed": str(folder / "seed.json"), "role": "standby" if number else "primary", **options}
        config = folder / "db.toml"
        config.write_text(
            f'service = "db"\nstate_dir = {json.dumps(str(folder / "db"))}\n[bus]\nurl = {json.dumps(url)}\n'
            + "[[hosts]]\n"
            + "".join(f"{name} = {json.dumps(value)}\n" for name, value in host.items())
            + "[options]\n"
            + "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        )
        with (folder / "db.log").open("ab") as log:
            self._processes[number] = await asyncio.create_subprocess_exec(
                *within, sys.executable, "-m", "services.db", "--config", str(config), stderr=log, stdout=log
            )

    async def kill(self, number: int) -> None:
        process = self._processes.pop(number)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def stop(self) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self._processes.values()))

    def log(self, number: int) -> str:
        return (self.folder / f"host{number}" / "db.log").read_text()


class Writer:
    """Counts up a row of its own and remembers what was acknowledged. An error ends nothing: it asks what is there."""

    def __init__(self, bus: Bus, hosts: Hosts) -> None:
        self._bus = bus
        self._hosts = hosts
        self.ref = rows.ref()
        self.acknowledged = 0
        """The last number that was saved for sure."""
        self.answers = 0
        self.tried = 0
        self.unknown: list[str] = []
        self.generation = 0

    async def create(self) -> None:
        made = contract.Create(cls="network", ref=self.ref, fields={"name_label": "0", "name_description": "0"})
        await self._bus.call(contract.TRANSACT, contract.Transact(changes=[made]), timeout=30)

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            self.tried += 1
            number = str(self.tried)
            change = contract.Update(
                cls="network", ref=self.ref, fields={"name_label": number, "name_description": number}
            )
            try:
                committed = await self._bus.call(contract.TRANSACT, contract.Transact(changes=[change]), timeout=30)
            except ApiError as error:
                self.unknown.append(str(error))
                continue
            assert committed.generation > self.generation, "generations never go back"
            self.generation = committed.generation
            self.acknowledged = self.tried
            self.answers += 1


@asynccontextmanager
async def working(writers: Sequence[Writer]) -> AsyncIterator[None]:
    """They write inside; what they have begun ends with it."""
    stopping = asyncio.Event()
    work = [asyncio.create_task(writer.run(stopping)) for writer in writers]
    try:
        yield
        stopping.set()
        await asyncio.gather(*work)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def more(writers: Sequence[Writer], count: int) -> None:
    """Each of them has got so many more answers."""
    before = [writer.answers for writer in writers]

    async def there() -> bool:
        return all(writer.answers >= old + count for writer, old in zip(writers, before, strict=True))

    await until(there, 30.0)


def assert_kept(store: Store, writers: Sequence[Writer], acknowledged: Sequence[int]) -> None:
    """What each of them had been told is there, and nothing is half there."""
    for writer, count in zip(writers, acknowledged, strict=True):
        row = store.row("network", writer.ref)
        assert row is not None
        assert int(row["name_label"]) >= count, "an acknowledged write is missing"
        assert row["name_label"] == row["name_description"], "half a transaction is there"
