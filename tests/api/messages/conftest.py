from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.host import HostStorage
from services.storage.service import Handlers
from services.storage.transfer.transfers import Transfers
from shared.contracts.storage import DRIVERS_CHANGED, DriversChanged
from tests.api.harness import Client, Pool
from tests.api.messages.real_storage import Real
from tests.storage.support import machine
from tests.storage.transfer.bench import Bench


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    """Two hosts, brought in."""
    running = await Pool.start(tmp_path)
    yield running
    await running.stop()


@pytest.fixture
async def client(pool: Pool) -> Client:
    return await pool.login()


@pytest.fixture
async def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Real]:
    (tmp_path / "pool").mkdir()
    (tmp_path / "sockets").mkdir()
    pool = await Pool.start(tmp_path / "pool", hosts=1)
    fake = pool.hosts[0]
    monkeypatch.setattr(fake, "_disk", lambda sr, location: None)  # its VMs have disks that it does not know
    async with machine(tmp_path / "state", fake.uuid) as running:
        host: HostStorage = running[fake.uuid]
        transfers = Transfers(host.repositories, host.datapaths, host.locks, tmp_path / "sockets")
        for method, handler in Handlers(host, running.plugins, fake.bus, transfers).table():
            await fake.bus.serve(method, handler, host=fake.uuid)
        await fake.bus.publish(DRIVERS_CHANGED, DriversChanged(host=fake.uuid), host=fake.uuid)
        await pool.until(lambda: "file" in {row["type"] for row in pool.store.rows("SM").values()})
        yield Real(pool, await pool.login(), Bench(host, transfers, tmp_path / "sockets"), tmp_path)
        await transfers.close()
        await pool.stop()
