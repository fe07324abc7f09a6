"""Disks that move between two hosts with real storage, neither of which sees the other's SR."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from services.api.edge.tls import Certificates, Shown
from services.storage.host import HostStorage
from services.storage.motion.receptions import Place
from services.storage.motion.setup import Motion
from services.storage.nbd.credentials import Identity
from services.storage.service import Handlers
from services.storage.transfer.transfers import Transfers
from shared.config import HostConfig
from shared.contracts.storage import DRIVERS_CHANGED, DriversChanged
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool
from tests.storage.support import MIB, machine
from tests.storage.transfer.bench import Bench, Model


class Far:
    """A pool whose hosts have an SR each."""

    def __init__(self, pool: Pool, client: Client, benches: list[Bench], srs: list[str]) -> None:
        self.pool, self.client, self.benches, self.srs = pool, client, benches, srs

    async def disk(self, size: int = 4 * MIB) -> tuple[str, Model]:
        """On the first host, with something in it."""
        vdi, model = str(await self.client.call("VDI.create", records.vdi(self.srs[0], size))), Model(size, 9)
        location, sr = self._place(vdi)
        async with self.benches[0].opened(location, sr=sr) as client:
            await model.change(client)
        return vdi, model

    async def content(self, vdi: str) -> bytes:
        """Of a disk on the second host."""
        location, sr = self._place(vdi)
        return await self.benches[1].content(location, sr=sr)

    def _place(self, vdi: str) -> tuple[str, str]:
        row = self.pool.row("VDI", vdi)
        return row["location"], self.pool.row("SR", row["SR"])["uuid"]


@pytest.fixture
async def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Far]:
    (tmp_path / "pool").mkdir()
    pool = await Pool.start(tmp_path / "pool", hosts=2)
    client, benches, srs = await pool.login(), [], []
    certificates = tmp_path / "certificates"
    async with AsyncExitStack() as stack:
        for number, fake in enumerate(pool.hosts):
            place, address = tmp_path / fake.uuid[:4], f"127.0.0.{number + 11}"
            (place / "sr").mkdir(parents=True)
            (place / "s").mkdir()
            Certificates(certificates).pem(HostConfig(uuid=fake.uuid, name="", address=address), Shown.HOSTS)
            monkeypatch.setattr(fake, "_disk", lambda sr, location: None)  # its VMs have disks that it does not know
            running = await stack.enter_async_context(machine(place / "state", fake.uuid))
            host: HostStorage = running[fake.uuid]
            where = Place(address, place / "s", Identity(certificates, fake.uuid))
            motion = Motion(host, fake.bus, running.journal, where)
            transfers = Transfers(*(host.repositories, host.datapaths, host.locks, place / "s"), sending=motion.sending)
            for method, handler in (*Handlers(host, running.plugins, fake.bus, transfers).table(), *motion.table()):
                await fake.bus.serve(method, handler, host=fake.uuid)
            await fake.bus.publish(DRIVERS_CHANGED, DriversChanged(host=fake.uuid), host=fake.uuid)
            stack.push_async_callback(motion.close)
            stack.push_async_callback(transfers.close)
            benches.append(Bench(host, transfers, place / "s"))
        await pool.until(lambda: "file" in {row["type"] for row in pool.store.rows("SM").values()})
        for number, fake in enumerate(pool.hosts):
            config = {"location": str(tmp_path / fake.uuid[:4] / "sr")}
            arguments: tuple[Any, ...] = (config, 0, f"sr{number}", "", "file", "", False, {})
            srs.append(str(await client.call("SR.create", pool.host_ref(number), *arguments)))
        yield Far(pool, client, benches, srs)
        await pool.idle()
        assert all(bench.nothing_is_open() for bench in benches)
        assert leftovers(pool) == {}
        await pool.stop()


async def test_a_disk_is_copied_to_the_sr_of_another_host(far: Far) -> None:
    disk, model = await far.disk()
    copy = await far.client.call("VDI.copy", disk, far.srs[1])
    assert await far.content(copy) == bytes(model.content)
    into = await far.client.call("VDI.create", records.vdi(far.srs[1], 5 * MIB))
    assert await far.client.call("VDI.copy", disk, "OpaqueRef:NULL", "OpaqueRef:NULL", into) == into
    assert await far.content(into) == bytes(model.content) + bytes(MIB)


async def test_a_disk_of_a_halted_vm_moves_to_the_sr_of_another_host(far: Far) -> None:
    disk, model = await far.disk()
    vm = await far.pool.vm(far.client)
    vbd = await far.client.call("VBD.create", records.vbd(vm, disk))
    moved = await far.client.call("VDI.pool_migrate", disk, far.srs[1], {"dest-img-format": "qcow2"})
    assert await far.content(moved) == bytes(model.content)
    assert (far.pool.row("VBD", vbd)["VDI"], far.pool.row("VDI", disk)) == (moved, None)
    assert not [name for name in os.listdir(far.benches[0].folder.parent / "sr") if name.endswith(".qcow2")]
    refusal = await far.client.refusal("VDI.pool_migrate", moved, far.srs[0], {"dest-img-format": "vhd"})
    assert refusal[0] == "VDI_INCOMPATIBLE_TYPE"
