"""The plug-in that docs/storage-plugins.md begins with, installed as it says; it changes and goes while it is used."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.nbd.address import parse
from services.storage.nbd.client import NbdClient
from shared.bus.contract import Empty
from shared.bus.memory import MemoryBroker
from shared.contracts import storage as contract
from shared.errors import ApiError
from tests.storage.smapiv3.test_service import begin
from tests.storage.support import HOST_A, HOST_B, MIB, SR, disk, new_uuid
from tests.storage.test_service import Running

DOCS = Path(__file__).parents[3] / "docs"
KIND = "qcow"
VOLUME = "volume/org.xen.xapi.storage.qcow"
DATAPATH = "datapath/qcow-nbd"


def install(root: Path, part: str) -> Path:
    """The lines of the page that make that folder."""
    [command] = [
        text
        for text in re.findall(r"^    for .*?^    done$", (DOCS / "storage-plugins.md").read_text(), re.M | re.S)
        if f"{Path(part).parts[0]}.py" in text
    ]
    names = re.sub(r"\s*\\\n\s*", " ", command).partition(" in ")[2].partition(";")[0].split()
    folder = root / part
    folder.mkdir(parents=True)
    program = f"{Path(part).parts[0]}.py"
    shutil.copy(DOCS / "examples/storage-plugin" / program, folder)
    for name in names:
        (folder / name).symlink_to(program)
    return folder


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    short = Path(await asyncio.to_thread(tempfile.mkdtemp))  # for the plug-in's sockets
    monkeypatch.setenv("TMPDIR", str(short))
    broker = MemoryBroker()
    made = Running(broker, await begin(broker, tmp_path), await broker.connect("client"), tmp_path / "sr")
    yield made
    await made.client.close()
    await made.service.close()
    await asyncio.to_thread(shutil.rmtree, short)


async def changed(running: Running, work: str, *arguments: Path) -> dict[str, contract.DriverInfo]:
    """Does something to the plug-in's folders (`work`: a function of os or shutil), and waits until the API hears."""
    heard = asyncio.Event()
    subscription = await running.client.subscribe(contract.DRIVERS_CHANGED, lambda *_: heard.set(), host=HOST_A)
    await asyncio.to_thread(getattr(os, work, None) or getattr(shutil, work), *arguments)
    async with asyncio.timeout(20):
        await heard.wait()
    await subscription.cancel()
    drivers = (await running.client.call(contract.DRIVERS, Empty(), host=HOST_A)).drivers
    return {driver.type: driver for driver in drivers}


async def test_the_example_works_and_survives_what_is_done_to_its_folders(running: Running, tmp_path: Path) -> None:
    call, root = running.client.call, tmp_path / "root"
    await asyncio.to_thread(install, tmp_path / "new", DATAPATH)
    await asyncio.to_thread(install, tmp_path / "new", VOLUME)
    assert KIND in await changed(running, "rename", tmp_path / "new", root)

    device = {"path": str(running.folder)}
    await call(contract.SR_CREATE, contract.SrCreate(sr=SR, type=KIND, device_config=device), host=HOST_A)
    for host in (HOST_A, HOST_B):
        await call(contract.SR_ATTACH, contract.SrAttach(sr=SR, type=KIND, device_config=device), host=host)
    made = await call(contract.VDI_CREATE, contract.VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=MIB), host=HOST_A)
    wanted = contract.Open(disks=[disk(made.location)])
    [backend] = (await call(contract.OPEN, wanted, host=HOST_A)).backends
    assert (backend.kind, backend.format) == ("nbd", "raw")
    async with await NbdClient.connect(parse(backend.path)) as client:
        await client.write(4096, b"written" * 100)
        await client.flush()
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await call(contract.OPEN, wanted, host=HOST_B)

    # the datapath is gone while a disk is open: what cannot be closed stays, and is closed when it is back
    await asyncio.to_thread(shutil.move, root / DATAPATH, tmp_path / "away")
    await _until(running, "MISSING_URI", contract.CLOSE, contract.Close(dps=["vbd/vm/0"]))
    [left] = (await call(contract.DATAPATHS, Empty(), host=HOST_A)).datapaths
    assert left.dp == "vbd/vm/0"
    await asyncio.to_thread(shutil.move, tmp_path / "away", root / DATAPATH)
    await _until(running, "", contract.CLOSE, contract.Close(dps=["vbd/vm/0"]))
    assert (await call(contract.DATAPATHS, Empty(), host=HOST_A)).datapaths == []

    # it loses a function, and gets it again
    snapshot = contract.VdiClone(sr=SR, location=made.location, uuid=new_uuid(), snapshot=True)
    script = root / VOLUME / "Volume.snapshot"
    features = (await changed(running, "rename", script, tmp_path / "script"))[KIND].features
    assert "VDI_SNAPSHOT" not in features
    with pytest.raises(ApiError, match="UNIMPLEMENTED_IN_SM_BACKEND"):
        await call(contract.VDI_CLONE, snapshot, host=HOST_B)
    assert "VDI_SNAPSHOT" in (await changed(running, "rename", tmp_path / "script", script))[KIND].features
    taken = await call(contract.VDI_CLONE, snapshot, host=HOST_B)
    [backend] = (
        await call(contract.OPEN, contract.Open(disks=[disk(taken.location, writable=False)]), host=HOST_B)
    ).backends
    async with await NbdClient.connect(parse(backend.path)) as client:
        assert not client.writable
        assert await client.read(4096, 7) == b"written"
    await call(contract.CLOSE, contract.Close(dps=["vbd/vm/0"]), host=HOST_B)

    # the SR type goes while its SR is attached: nothing can be done then, and nothing is lost
    assert KIND not in await changed(running, "rename", root / VOLUME, tmp_path / "gone")
    with pytest.raises(ApiError, match="SCRIPT_MISSING"):
        await call(contract.SR_SCAN, contract.SrRef(sr=SR), host=HOST_A)
    with pytest.raises(ApiError, match="SR_UNKNOWN_DRIVER"):
        await call(contract.SR_ATTACH, contract.SrAttach(sr=new_uuid(), type=KIND, device_config=device), host=HOST_A)
    assert KIND in await changed(running, "rename", tmp_path / "gone", root / VOLUME)
    scan = await call(contract.SR_SCAN, contract.SrRef(sr=SR), host=HOST_A)
    assert {each.location for each in scan.disks} == {made.location, taken.location}
    for host in (HOST_A, HOST_B):
        await call(contract.SR_DETACH, contract.SrRef(sr=SR), host=host)


async def _until(running: Running, code: str, method: object, request: object) -> None:
    """Repeats a call until it ends as it has to: the folders are looked at now and then."""
    async with asyncio.timeout(20):
        while True:
            try:
                await running.client.call(method, request, host=HOST_A)  # type: ignore[arg-type, type-var]
                found = ""
            except ApiError as error:
                found = error.code
            if found == code:
                return
            await asyncio.sleep(0.1)
