"""A driver of VHDs that uses blktap's programs and calls tapdisk-pause on hosts, with disks that are written to."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.storage.nbd.address import Address
from services.storage.nbd.client import NbdClient
from services.storage.plugins.interface import Domain, Handle, Volume
from services.storage.smapiv1.plugin import DriverPlugin
from services.storage.smapiv1.private_view import PrivateView
from services.storage.smapiv1.view import HERE, SystemView
from tests.api.handlers.conftest import Site
from tests.api.harness import Pool
from tests.storage.shims.conftest import MIB, needs_root
from tests.storage.smapiv1.conftest import DRIVERS, Bench, Socket, disk, new

pytestmark = [pytest.mark.asyncio(loop_scope="module"), needs_root]
SIZE = 8 * MIB
BLOCK = 4096


class Sr:
    """An SR of the driver on a host whose API runs the plug-ins of drivers."""

    def __init__(self, bench: Bench, plugin: DriverPlugin, handle: Handle, ref: str, folder: Path) -> None:
        self.bench, self.plugin, self.handle, self.ref = bench, plugin, handle, ref
        self.uuid = bench.pool.row("SR", ref)["uuid"]
        self.folder = folder / self.uuid
        self.domain = Domain(host=bench.host.uuid, dp="vbd/vm/0")

    async def open(self, volume: Volume) -> NbdClient:
        attached = await self.plugin.datapath.attach(volume.uri[0], self.domain)
        await self.plugin.datapath.activate(volume.uri[0], self.domain)
        found = await self.plugin.datapath.located(volume.uri[0], self.domain, attached)
        socket, _, export = found.path.removeprefix("nbd:unix:").partition(":exportname=")
        return await NbdClient.connect(Address(path=socket, export=export))

    async def close(self, volume: Volume, client: NbdClient) -> None:
        await client.close()
        await self.plugin.datapath.deactivate(volume.uri[0], self.domain)
        await self.plugin.datapath.detach(volume.uri[0], self.domain)

    async def content(self, volume: Volume) -> bytes:
        client = await self.open(volume)
        found = await client.read(0, volume.virtual_size)
        await self.close(volume, client)
        return found

    async def ask(self, plugin: str, function: str, **arguments: str) -> str:
        host = self.bench.pool.host_ref(0)
        return str(await self.bench.client.call("host.call_plugin", host, plugin, function, arguments))

    async def quiesce(self, function: str, volume: Volume) -> str:
        return await self.ask("tapdisk-pause", function, sr_uuid=self.uuid, vdi_uuid=volume.uuid)

    async def is_open(self, volume: Volume) -> str:
        return await self.ask("on-slave", "is_open", srRef=self.ref, vdiUuid=volume.uuid)

    def images(self) -> list[str]:
        return sorted(os.listdir(self.folder))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sr(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sr]:
    folder = tmp_path_factory.mktemp("tap")
    pool = await Pool.start(
        folder,
        hosts=1,
        unix_socket=str(folder / "xapi-0"),
        driver_view=str(folder / "view" / "ns"),
        plugins=str(folder / "plugins"),
        bundled_plugins=str(HERE / "shims" / "plugins"),
    )
    client = await pool.login()
    site = Site(pool, client, folder)
    await site.start()
    bench = Bench(Socket(pool, client, site), folder)
    view = PrivateView(folder / "view", str(site.socket), str(DRIVERS), SystemView(folder / "view" / "state"))
    bench.host.view = view
    plugin, handle, ref = await bench.attached("testvhd", location=str(folder / "medium"))
    yield Sr(bench, plugin, handle, ref, folder / "medium")
    await plugin.sr.detach(handle)
    await bench.host.xapi.logout()
    await view.close()
    await site.stop()
    await pool.stop()


class Load:
    """Writes and reads blocks of a range at random, until it is ended; `model` is what the disk must hold then."""

    def __init__(self, client: NbdClient, model: bytearray, first: int, after: int) -> None:
        self._client, self.model, self._range = client, model, (first, after)
        self._over = asyncio.Event()
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(2)]

    async def _run(self, number: int) -> None:
        chance = random.Random(number)
        while not self._over.is_set():
            at = chance.randrange(self._range[0] // 4 + 1, self._range[1] // 4) * 4 * BLOCK - number * BLOCK
            data = chance.randbytes(BLOCK)
            await self._client.write(at, data)
            self.model[at : at + BLOCK] = data
            assert await self._client.read(at, BLOCK) == data
            await asyncio.sleep(0.005)  # a guest's load, not all that the machine can do

    async def end(self) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)


async def test_a_disk_under_load_is_snapshotted_and_its_chain_merged(sr: Sr) -> None:
    volume = await disk(sr.plugin, sr.handle, size=SIZE)
    client = await sr.open(volume)
    model = bytearray(SIZE)
    quiet = os.urandom(MIB)
    await client.write(0, quiet)
    model[:MIB] = quiet
    load = Load(client, model, 512, SIZE // BLOCK)
    snapshots = [await sr.plugin.volume.snapshot(sr.handle, volume.key, new(f"s{number}")) for number in range(2)]
    later = os.urandom(MIB)
    await client.write(0, later)
    model[:MIB] = later
    assert len(sr.images()) == 5
    # the older snapshot goes, so its base has the next base as its only child; then the newer one, under load again
    for snapshot in snapshots:
        if snapshot is snapshots[-1]:
            assert (await sr.content(snapshot))[:MIB] == quiet
        await sr.plugin.volume.destroy(sr.handle, snapshot.key)
    while len(sr.images()) > 1:
        before = len(sr.images())
        await sr.plugin.sr.ls(sr.handle)
        assert len(sr.images()) < before
    await load.end()
    assert await client.read(0, SIZE) == model
    await client.flush()
    await sr.close(volume, client)
    grown = await sr.plugin.volume.resize(sr.handle, volume.key, 3 * SIZE)
    assert await sr.content(grown) == bytes(model) + bytes(2 * SIZE)
    await sr.plugin.volume.destroy(sr.handle, volume.key)
    assert sr.images() == []


async def test_a_guests_disk_only_waits_while_it_is_paused(sr: Sr) -> None:
    volume = await disk(sr.plugin, sr.handle, size=SIZE)
    client = await sr.open(volume)
    assert await sr.quiesce("pause", volume) == "True"
    assert await sr.quiesce("pause", volume) == "True"
    written = asyncio.create_task(client.write(0, b"w" * BLOCK))
    assert await sr.is_open(volume) == "True"
    assert not written.done()
    assert await sr.quiesce("unpause", volume) == "True"
    await written
    assert await sr.quiesce("refresh", volume) == "True"
    assert await client.read(0, BLOCK) == b"w" * BLOCK
    await sr.close(volume, client)
    assert await sr.quiesce("pause", volume) == "True"  # nobody has it
    assert await sr.is_open(volume) == "False"
    await sr.plugin.volume.destroy(sr.handle, volume.key)


async def test_a_disk_that_somebody_else_serves_is_not_said_to_be_paused(sr: Sr, tmp_path: Path) -> None:
    volume = await disk(sr.plugin, sr.handle, size=SIZE)
    control = sr.bench.host.view.outside("/run/blktap-control")
    link = Path(control) / "nbd" / sr.uuid / volume.uuid
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/run/blktap-control/other")
    server = await asyncio.create_subprocess_exec(
        *("qemu-nbd", "-k", f"{control}/other", "-t", "--fork", "--pid-file", str(tmp_path / "pid")),
        *("-f", "vpc", str(sr.folder / f"{volume.uuid}.vhd")),
        stdout=subprocess.DEVNULL,
    )
    assert await server.wait() == 0
    assert await sr.quiesce("pause", volume) == "False"
    assert await sr.is_open(volume) == "True"
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    while await sr.is_open(volume) == "True":
        pass
    assert await sr.quiesce("pause", volume) == "True"
    link.unlink()
    await sr.plugin.volume.destroy(sr.handle, volume.key)


async def test_a_file_that_a_process_has_open_counts_as_open(sr: Sr) -> None:
    volume = await disk(sr.plugin, sr.handle, size=SIZE)
    assert await sr.is_open(volume) == "False"
    descriptor = os.open(sr.folder / f"{volume.uuid}.vhd", os.O_RDONLY)
    assert await sr.is_open(volume) == "True"
    os.close(descriptor)
    await sr.plugin.volume.destroy(sr.handle, volume.key)


async def test_a_killed_tapdisk_can_be_deactivated_and_activated_again(sr: Sr) -> None:
    volume = await disk(sr.plugin, sr.handle, size=SIZE)
    client = await sr.open(volume)
    await client.write(MIB, b"k" * BLOCK)
    link = Path(sr.bench.host.view.outside("/run/blktap-control")) / "nbd" / sr.uuid / volume.uuid
    pid, _, minor = os.path.basename(os.readlink(link)).removeprefix("nbd").partition(".")
    os.kill(int(pid), signal.SIGKILL)
    await client.close()
    assert await sr.quiesce("pause", volume) == "True"
    assert await sr.is_open(volume) == "False"
    link.unlink()  # as drivers do that find no tapdisk; this one knows no such case
    await asyncio.to_thread(
        subprocess.run, sr.bench.host.view.command(["/usr/sbin/tap-ctl", "free", "-m", minor]), check=True
    )
    row = sr.bench.vdi_ref(volume)
    tag = f"host_{sr.bench.pool.host_ref(0)}"
    await sr.bench.host.xapi.call(sr.ref, "VDI.remove_from_sm_config", row, tag)
    await sr.plugin.datapath.deactivate(volume.uri[0], sr.domain)
    assert (await sr.content(volume))[MIB : MIB + BLOCK] == b"k" * BLOCK
    await sr.plugin.volume.destroy(sr.handle, volume.key)


async def test_an_administrators_plugin_comes_before_ours(sr: Sr) -> None:
    folder = sr.bench.folder / "plugins"
    folder.mkdir()
    own = folder / "on-slave"
    own.write_text(
        "#!/usr/bin/python3 -S\nimport XenAPIPlugin\nXenAPIPlugin.dispatch({'is_open': lambda session, args: 'mine'})\n"
    )
    own.chmod(0o755)
    assert await sr.ask("on-slave", "is_open", srRef=sr.ref, vdiUuid="x") == "mine"
    own.unlink()
    assert await sr.ask("on-slave", "is_open", srRef=sr.ref, vdiUuid="x") == "False"
    assert await sr.ask("on-slave", "multi", vgName="none") == "True"
