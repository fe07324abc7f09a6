"""SRs whose medium goes away, or takes no more writes, while disks are open: what is said, and what comes back."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from services.storage.host import HostStorage
from services.storage.journal import Journal
from services.storage.live import Live
from services.storage.options import StorageOptions
from services.storage.plugins.bundled import bundled
from services.storage.plugins.file import lease
from services.storage.plugins.interface import Domain
from services.storage.plugins.mounted_point import mounted_at, mounts
from services.storage.plugins.program import run
from shared.contracts.storage import SrAttach, SrCreate
from shared.errors import ApiError
from tests.storage.conformance.loops import Loop, loop_device
from tests.storage.support import HOST_A, MIB, SR, disk, with_disk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

TASK, VM = "task/1", "vbd/vm/0"


@dataclass
class Machine:
    """`device`: a link to the block device, so that it can go and come. `place`: where it is mounted."""

    host: HostStorage
    device: Path
    place: Path
    request: SrAttach

    async def mount(self, *arguments: str) -> None:
        output = await run(["mount", *arguments, str(self.place)])
        assert output.status == 0, output.words

    async def unmount(self, *arguments: str) -> None:
        output = await run(["umount", *arguments, str(self.place)])
        assert output.status == 0, output.words

    def held(self) -> list[tuple[str, bool]]:
        return sorted((each.dp, each.leaked) for each in self.host.datapaths.held())

    def leases(self) -> list[str]:
        return sorted(found.dp for _, found, _ in lease.held(self.place / SR, HOST_A))


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with loop_device(tmp_path / "image", 16 * MIB) as made:
        yield made
        for found in mounts():
            if found.place.startswith(str(tmp_path)):
                subprocess.run(["umount", found.place], check=True)


@pytest.fixture
async def machine(loop: Loop, tmp_path: Path) -> AsyncIterator[Machine]:
    device = tmp_path / "device"
    device.symlink_to(loop.path)
    (tmp_path / "journal").mkdir()
    journal = Journal(tmp_path / "journal" / "1")
    plugins = bundled(StorageOptions(), tmp_path, cast(Live, None))
    host = HostStorage(HOST_A, plugins, journal)
    await host.start("boot")
    config = {"device": str(device)}
    await host.create_sr(SrCreate(sr=SR, type="ext", device_config=config))
    request = SrAttach(sr=SR, type="ext", device_config=config)
    await host.attach_sr(request)
    yield Machine(host, device, tmp_path / "sr-mount" / HOST_A / SR, request)
    for plugin in plugins.values():
        await plugin.close()
    await journal.close()


async def test_a_mount_that_is_lost_under_open_disks_comes_back_and_leaks_nothing(machine: Machine) -> None:
    host = machine.host
    exported, used = await with_disk(host), await with_disk(host)
    [backend, _] = await host.datapaths.open([disk(used, VM), disk(exported, TASK, writable=False)])
    with await asyncio.to_thread(open, backend.path, "rb"):  # as QEMU does
        await machine.unmount("--lazy")
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
            await with_disk(host)
        await host.datapaths.close([TASK])
        assert machine.held() == [(TASK, True), (VM, False)]
        await host.retry()
        assert machine.held() == [(VM, False)]
        assert machine.leases() == [VM]
    await host.datapaths.open([disk(exported, "task/2")])
    await host.datapaths.close([VM, "task/2"])
    await host.detach_sr(SR)
    assert mounted_at(machine.place) is None


async def test_while_the_device_is_gone_that_is_what_everybody_is_told_and_then_the_sr_works_again(
    machine: Machine,
) -> None:
    host, target = machine.host, os.readlink(machine.device)
    location = await with_disk(host)
    await host.datapaths.open([disk(location, TASK)])
    machine.device.unlink()
    await machine.unmount("--lazy")
    await host.retry()
    await host.datapaths.close([TASK])
    for work in (host.disks.scan(SR), host.datapaths.open([disk(location, "task/2")])):
        with pytest.raises(ApiError, match=f"SR_BACKEND_FAILURE_47.*the device is not there: {machine.device}"):
            await work
    machine.device.symlink_to(target)
    await host.retry()
    assert machine.held() == []
    assert [each.location for each in (await host.disks.scan(SR)).disks] == [location]
    await host.datapaths.open([disk(location, "task/2")])
    await host.datapaths.close(["task/2"])


async def test_an_sr_whose_device_is_gone_can_be_detached_and_what_was_leaked_is_closed_when_it_is_attached_again(
    machine: Machine,
) -> None:
    host, target = machine.host, os.readlink(machine.device)
    location = await with_disk(host)
    await host.datapaths.open([disk(location, TASK)])
    machine.device.unlink()
    await host.retry()
    await host.datapaths.close([TASK])
    await host.detach_sr(SR)
    assert mounted_at(machine.place) is None
    machine.device.symlink_to(target)
    await host.attach_sr(machine.request)
    assert (machine.held(), machine.leases()) == ([], [])


async def test_an_sr_that_takes_no_more_writes_says_so_and_goes_on_when_it_does(machine: Machine) -> None:
    host = machine.host
    location = await with_disk(host)
    await host.datapaths.open([disk(location, TASK, writable=False)])
    await machine.mount("-o", "remount,ro")
    await host.datapaths.close([TASK])
    for work in (with_disk(host), host.datapaths.open([disk(location, TASK)])):
        with pytest.raises(ApiError, match=r"SR_BACKEND_FAILURE_461.*Read-only file system"):
            await work
    assert [each.location for each in (await host.disks.scan(SR)).disks] == [location]
    await host.retry()
    assert machine.held() == [(TASK, True)]
    await machine.mount("-o", "remount,rw")
    await host.retry()
    assert (machine.held(), machine.leases()) == ([], [])


async def test_an_sr_that_takes_no_more_writes_can_be_detached_and_attached_again(machine: Machine) -> None:
    host = machine.host
    location = await with_disk(host)
    await host.datapaths.open([disk(location, TASK), disk(await with_disk(host), VM)])
    await machine.mount("-o", "remount,ro")
    await host.datapaths.close([TASK])
    with pytest.raises(ApiError, match="SR_DEVICE_IN_USE"):
        await host.detach_sr(SR)
    await host.datapaths.close([VM])
    await host.detach_sr(SR)
    assert mounted_at(machine.place) is None
    await host.attach_sr(machine.request)
    assert (machine.held(), machine.leases()) == ([], [])


async def test_what_the_sr_says_is_open_for_a_task_that_nobody_knows_is_closed(machine: Machine) -> None:
    location = await with_disk(machine.host)
    await asyncio.to_thread(lease.acquire, machine.place / SR, location, Domain(host=HOST_A, dp=TASK), True)
    await machine.host.detach_sr(SR)
    await machine.host.attach_sr(machine.request)
    assert (machine.held(), machine.leases()) == ([], [])
