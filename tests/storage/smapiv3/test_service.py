"""Script plug-ins through the storage service, on the bus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage import service as service_module
from shared.bus.context import CallContext
from shared.bus.contract import Empty
from shared.bus.memory import MemoryBroker
from shared.contracts import storage as contract
from shared.contracts.task import CANCEL, Cancel
from shared.errors import ApiError
from shared.service import Service
from tests.storage.smapiv3.install import raw_file, script, simple_file
from tests.storage.support import HOST_A, HOST_B, MIB, SR, disk, new_uuid
from tests.storage.test_service import Running, config, start


async def begin(broker: MemoryBroker, folder: Path) -> Service:
    settings = config(folder, smapiv3_root=str(folder / "root"), smapiv1_dir=str(folder / "none"), retry_interval=0.1)
    return await start(broker, settings)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    broker = MemoryBroker()
    client = await broker.connect("client")
    made = Running(broker, await begin(broker, tmp_path), client, tmp_path / "sr")
    yield made
    await client.close()
    await made.service.close()


async def with_sr(running: Running) -> None:
    device = {"location": str(running.folder)}
    create = contract.SrCreate(sr=SR, type="simple-file", device_config=device)
    await running.client.call(contract.SR_CREATE, create, host=HOST_A)
    for host in (HOST_A, HOST_B):
        attach = contract.SrAttach(sr=SR, type="simple-file", device_config=device)
        await running.client.call(contract.SR_ATTACH, attach, host=host)


async def appear(running: Running, root: Path) -> None:
    """The plug-ins are put there when it is known what was there before, and the API hears of it."""
    await running.client.call(contract.DRIVERS, Empty(), host=HOST_A)
    heard = asyncio.Event()

    def listen(_: contract.DriversChanged, __: str) -> None:
        heard.set()

    await running.client.subscribe(contract.DRIVERS_CHANGED, listen, host=HOST_A)
    raw_file(root)
    simple_file(root)
    async with asyncio.timeout(20):
        await heard.wait()


async def test_disks_of_a_plug_in_that_came_while_the_service_ran(running: Running, tmp_path: Path) -> None:
    call = running.client.call
    await appear(running, tmp_path / "root")
    drivers = (await call(contract.DRIVERS, Empty(), host=HOST_A)).drivers
    assert "simple-file" in {driver.type for driver in drivers}
    await with_sr(running)
    request = contract.VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=MIB, type="system", sm_config={"k": "v"})
    made = await call(contract.VDI_CREATE, request, host=HOST_A)
    assert (made.type, made.sm_config, made.virtual_size) == ("system", {"k": "v"}, MIB)

    wanted = contract.Open(disks=[disk(made.location)])
    opened = await call(contract.OPEN, wanted, host=HOST_A)
    path = str(running.folder / f"{made.location}.raw")
    assert [(each.kind, each.path, each.format) for each in opened.backends] == [("file", path, "raw")]
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await call(contract.OPEN, wanted, host=HOST_B)
    snapshot = contract.VdiClone(sr=SR, location=made.location, uuid=new_uuid(), snapshot=True)
    taken = await call(contract.VDI_CLONE, snapshot, host=HOST_A)
    assert (taken.is_a_snapshot, taken.snapshot_of, taken.read_only) == (True, made.location, True)
    assert await call(contract.VDI_CLONE, snapshot, host=HOST_A) == taken, "the request was repeated"

    scan = await call(contract.SR_SCAN, contract.SrRef(sr=SR), host=HOST_B)
    assert {each.location for each in scan.disks} == {made.location, taken.location}
    assert scan.stat.virtual_allocation == 2 * MIB
    with pytest.raises(ApiError, match="UNIMPLEMENTED_IN_SM_BACKEND"):
        await call(contract.VDI_COMPOSE, contract.VdiPair(sr=SR, location=made.location, other="x"), host=HOST_A)
    await call(contract.CLOSE, contract.Close(dps=["vbd/vm/0"]), host=HOST_A)
    for location in (made.location, taken.location):
        await call(contract.VDI_DESTROY, contract.VdiRef(sr=SR, location=location), host=HOST_A)
    await call(contract.SR_DETACH, contract.SrRef(sr=SR), host=HOST_B)
    await call(contract.SR_DESTROY, contract.SrRef(sr=SR), host=HOST_A)


async def test_what_a_host_cannot_do_with_a_disk_is_done_where_it_is_activated(
    running: Running, tmp_path: Path
) -> None:
    """Hosts that disagree, or that are not there, do not send the caller round."""
    call = running.client.call
    await appear(running, tmp_path / "root")
    await with_sr(running)
    made = await call(contract.VDI_CREATE, contract.VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=MIB), host=HOST_A)
    await call(contract.OPEN, contract.Open(disks=[disk(made.location)]), host=HOST_A)
    for snapshot in (True, False):
        branch = contract.VdiClone(sr=SR, location=made.location, uuid=new_uuid(), snapshot=snapshot)
        found = await call(contract.VDI_CLONE, branch, host=HOST_B)
        assert (found.virtual_size, found.is_a_snapshot) == (MIB, snapshot)
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await call(contract.VDI_DESTROY, contract.VdiRef(sr=SR, location=made.location), host=HOST_B)

    for host in (HOST_B, new_uuid()):
        holder = running.folder / f"{made.location}.raw.rw.{host}"
        await asyncio.to_thread(holder.touch)
        branch = contract.VdiClone(sr=SR, location=made.location, uuid=new_uuid(), snapshot=True)
        for asked in (HOST_A, HOST_B):
            with pytest.raises(ApiError, match="VDI_IN_USE") as refused:
                await asyncio.wait_for(call(contract.VDI_CLONE, branch, host=asked), 20)
            assert refused.value.params == [made.location, "snapshot"]
        await asyncio.to_thread(holder.unlink)


async def test_a_restarted_service_finds_its_srs_and_closes_what_was_open(running: Running, tmp_path: Path) -> None:
    simple_file(tmp_path / "root")
    raw_file(tmp_path / "root")
    await running.service.close()
    running.service = await begin(running.broker, tmp_path)
    await with_sr(running)
    request = contract.VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=MIB)
    made = await running.client.call(contract.VDI_CREATE, request, host=HOST_A)
    await running.client.call(contract.OPEN, contract.Open(disks=[disk(made.location)]), host=HOST_A)
    # another program than that which made it: attaching anew would fail
    script(tmp_path / "root/volume/org.xen.xapi.storage.simple-file", "sr.attach", "#!/bin/sh\nexit 1\n")
    (tmp_path / "root/volume/org.xen.xapi.storage.simple-file/SR.attach").unlink()
    await running.service.close()
    running.service = await begin(running.broker, tmp_path)
    held = (await running.client.call(contract.DATAPATHS, Empty(), host=HOST_A)).datapaths
    assert [(each.location, each.state) for each in held] == [(made.location, "activated")]
    await running.client.call(contract.CLOSE, contract.Close(dps=["vbd/vm/0"]), host=HOST_A)
    assert [name.name for name in running.folder.glob("*.rw.*")] == []


async def test_after_a_reboot_a_disk_is_opened_before_anybody_has_a_database(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the redo log's is (VDI_ATTACH_OFFLINE): the service attaches the SR anew by itself."""
    simple_file(tmp_path / "root")
    raw_file(tmp_path / "root")
    await running.service.close()
    running.service = await begin(running.broker, tmp_path)
    await with_sr(running)
    request = contract.VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=MIB)
    made = await running.client.call(contract.VDI_CREATE, request, host=HOST_A)
    wanted = contract.Open(disks=[disk(made.location, "static/redo-log")])
    before = await running.client.call(contract.OPEN, wanted, host=HOST_A)
    await running.service.close()
    attach = tmp_path / "root/volume/org.xen.xapi.storage.simple-file/SR.attach"
    attach.unlink()
    heard = tmp_path / "heard"
    script(attach.parent, attach.name, f"#!/bin/sh\necho attach >>{heard}\necho '\"{running.folder}\"'\n")
    monkeypatch.setattr(service_module, "boot_identity", lambda: "another boot")
    running.service = await begin(running.broker, tmp_path)
    for host in (HOST_A, HOST_B):
        await running.client.call(contract.SR_STAT, contract.SrRef(sr=SR), host=host)
    assert (await asyncio.to_thread(heard.read_text)).split() == ["attach", "attach"], "for two hosts"
    assert (await running.client.call(contract.DATAPATHS, Empty(), host=HOST_A)).datapaths == []
    assert await running.client.call(contract.OPEN, wanted, host=HOST_A) == before


async def test_a_cancelled_call_ends_its_script(running: Running, tmp_path: Path) -> None:
    """No time limit ends it; the task does."""
    await appear(running, tmp_path / "root")
    await with_sr(running)
    folder = tmp_path / "root/volume/org.xen.xapi.storage.simple-file"
    (folder / "Volume.create").unlink()
    started = tmp_path / "started"
    os.mkfifo(started)
    script(folder, "Volume.create", f"#!/bin/sh\necho >{started}\nexec sleep 60\n")
    request = contract.VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=MIB)
    context = CallContext(task="OpaqueRef:task")
    creating = asyncio.create_task(running.client.call(contract.VDI_CREATE, request, host=HOST_A, context=context))
    await asyncio.to_thread(started.read_bytes)
    await running.client.publish(CANCEL, Cancel(task=context.task), task=context.task)
    with pytest.raises(ApiError, match="TASK_CANCELLED"):
        await asyncio.wait_for(creating, 20)
