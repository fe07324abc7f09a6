"""A pool of one host with real storage whose disks are served by NBD; qemu-img as somebody else's client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.storage.nbd.address import Address
from services.storage.nbd.client import NbdClient
from services.storage.nbd.front import front as front_module
from services.storage.nbd.front.exports import Exports
from services.storage.nbd.front.front import NbdFront
from services.storage.nbd.server import PROGRAMS
from services.storage.service import Handlers
from services.storage.transfer.transfers import Transfers
from shared.contracts.db import Update
from shared.contracts.storage import DRIVERS_CHANGED, DriversChanged
from tests.api.core import records
from tests.api.harness import Client, Pool
from tests.storage.support import MIB, machine
from tests.storage.transfer.bench import Bench

ADDRESS = "127.0.0.1"
HAGGLE_WITHIN = 1.0


@dataclass
class Served:
    pool: Pool
    client: Client
    bench: Bench
    front: NbdFront
    sr: str
    folder: Path
    _changed: asyncio.Event

    # ---- the pool

    async def purpose(self, *purposes: str) -> None:
        """Of the host's network; returns when the host listens, or not, as it has to."""
        row = self.pool.row("network", self.network)
        for gone in set(row["purpose"]) - set(purposes):
            await self.client.call("network.remove_purpose", self.network, gone)
        for new in set(purposes) - set(row["purpose"]):
            await self.client.call("network.add_purpose", self.network, new)
        await self.until_listening(bool(purposes))

    @property
    def network(self) -> str:
        return self.pool.ref("network", "network")

    async def until_listening(self, wanted: bool = True) -> None:
        async with asyncio.timeout(15):
            while bool(self.front.ports) != wanted:
                self._changed.clear()
                await self._changed.wait()

    async def disk(self, size: int = 2 * MIB) -> str:
        return str(await self.client.call("VDI.create", records.vdi(self.sr, size)))

    def place(self, vdi: str) -> str:
        return str(self.pool.row("VDI", vdi)["location"])

    async def write(self, vdi: str, offset: int, data: bytes) -> None:
        async with self.bench.opened(self.place(vdi), sr=self.pool.row("SR", self.sr)["uuid"]) as client:
            await client.write(offset, data)
            await client.flush()

    async def info(self, vdi: str) -> dict[str, Any]:
        [found] = await self.client.call("VDI.get_nbd_info", vdi)
        assert (found["address"], found["port"]) == (ADDRESS, 10809)
        return dict(found)

    # ---- clients

    @property
    def port(self) -> int:
        return self.front.ports[ADDRESS]

    async def connect(self, vdi: str, more: str = "", contexts: tuple[str, ...] = ("base:allocation",)) -> NbdClient:
        """Our own client, as the answer of VDI.get_nbd_info has it."""
        info = await self.info(vdi)
        address = Address(host=ADDRESS, port=self.port, export=info["exportname"] + more)
        tls = ssl.create_default_context(cadata=info["cert"]) if self.secure else None
        return await NbdClient.connect(address, tls=tls, server_name=info["subject"], contexts=contexts)

    @property
    def secure(self) -> bool:
        return bool(self.pool.row("network", self.network)["purpose"] == ["nbd"])

    async def qemu_img(self, vdi: str, command: str, *arguments: str, more: str = "", **source: str) -> tuple[int, str]:
        """Its status, and what it says. `source`: further options of QEMU's NBD client."""
        info = await self.info(vdi)
        options = {"driver": "nbd", "host": ADDRESS, "port": str(self.port), "export": info["exportname"] + more}
        creds: list[str] = []
        if self.secure:
            authority = self.folder / "authority"
            authority.mkdir(exist_ok=True)
            (authority / "ca-cert.pem").write_text(info["cert"])
            creds = ["--object", f"tls-creds-x509,id=tls,endpoint=client,dir={authority}"]
            options |= {"tls-creds": "tls", "tls-hostname": info["subject"]}
        image = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in {**options, **source}.items())
        process = await asyncio.create_subprocess_exec(
            *("qemu-img", command, *creds, "--image-opts", image, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def until_closed(self) -> None:
        """Returns when no client's disk is open any more, none of its servers runs, and no VBD tells of it."""
        async with asyncio.timeout(10):
            while not self.bench.nothing_is_open():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        await self.pool.until(lambda: not self.vbds())

    def vbds(self) -> list[Any]:
        """Of the host's control domain."""
        domain = self.pool.row("host", self.pool.host_ref(0))["control_domain"]
        return [row for row in self.pool.store.rows("VBD").values() if row["VM"] == domain]


@asynccontextmanager
async def served(folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    (folder / "pool").mkdir()
    (folder / "sockets").mkdir()
    (folder / "medium").mkdir()
    patch.setattr(front_module, "AGAIN", 0.1)
    pool = await Pool.start(folder / "pool", hosts=1)
    fake = pool.hosts[0]
    patch.setattr(fake, "_disk", lambda sr, location: None)  # its VMs have disks that it does not know
    changed = asyncio.Event()
    async with machine(folder / "state", fake.uuid) as running:
        host = running[fake.uuid]
        transfers = Transfers(host.repositories, host.datapaths, host.locks, folder / "sockets")
        for method, handler in Handlers(host, running.plugins, fake.bus, transfers).table():
            await fake.bus.serve(method, handler, host=fake.uuid)
        await fake.bus.publish(DRIVERS_CHANGED, DriversChanged(host=fake.uuid), host=fake.uuid)
        await pool.until(lambda: "file" in {row["type"] for row in pool.store.rows("SM").values()})
        certificates = Path(pool.service_of(0).config.state_dir) / "certificates"
        front = NbdFront(
            host=fake.uuid,
            bus=fake.bus,
            exports=Exports(host, folder / "sockets", PROGRAMS),
            port=0,
            certificate=(certificates / f"{fake.uuid}.pem", certificates / "key.pem"),
            haggle_within=HAGGLE_WITHIN,
            changed=changed.set,
        )
        front.begin(lambda work, name: asyncio.create_task(work, name=name))
        client = await pool.login()
        config = {"location": str(folder / "medium")}
        sr = await client.call("SR.create", pool.host_ref(0), config, 0, "sr", "", "file", "", False, {})
        [pif] = pool.store.rows("PIF")
        await pool.write(Update(cls="PIF", ref=pif, fields={"IP": ADDRESS, "currently_attached": True}))
        bench = Bench(host, transfers, folder / "sockets")
        try:
            yield Served(pool, client, bench, front, sr, folder, changed)
        finally:
            await front.close()
            await transfers.close()
            await pool.stop()
