"""Disks that come and go while a domain runs, on the simulator and on QEMU."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.vm.backend import Disk
from services.vm.qemu.backend import QemuBackend
from shared.contracts.vm import PowerState
from shared.contracts.vm_disks import DiskMirror
from shared.errors import ApiError
from tests.vm import specs
from tests.vm.backends import Bench
from tests.vm.consoles import ConsoleClient
from tests.vm.images import MB, GuestDisk, Images


@pytest.fixture
def images(bench: Bench, short_folder: Path) -> Images:
    return Images(short_folder, real=bench.backend.name == "qemu")


async def a_disk(images: Images, device: str, size: int = 4 * MB) -> Disk:
    return images.disk(specs.disk(device), await images.make(f"disk-{device}", size))


async def test_a_guest_sees_a_disk_that_is_plugged_and_one_that_is_unplugged_no_more(
    bench: Bench, images: Images
) -> None:
    real = bench.backend.name == "qemu"
    domain = await bench.start(bench.kind.spec())
    console = await ConsoleClient.connect(await bench.backend.console(domain.vm.uuid, "vt100"))
    await console.until(b"login: ")
    disks, slot = bench.backend.disks, GuestDisk(bench.backend, domain, "2").slot
    disk = await a_disk(images, "2", 8 * MB)
    for _ in range(2):
        await disks.plug(slot, disk)
    assert await disks.plugged(domain.vm.uuid) == {"2"}
    if real:
        console.type(b"root\n")
        await console.until(b"# ")
        console.type(
            b"until [ -e /sys/block/vda ]; do sleep 0.1; done; cat /sys/block/vda/size; echo h > /dev/vda; sync\n"
        )
        await console.until(b"16384")
        console.type(b"echo do''ne\n")
        await console.until(b"done")
    await bench.reopen(PowerState.RUNNING)
    disks = bench.backend.disks
    for _ in range(2):
        await disks.unplug(slot, force=False)
    assert await disks.plugged(domain.vm.uuid) == set()
    assert (await disks.chain(slot)).images == []
    await disks.plug(slot, disk)  # its slot, its names are free again
    await disks.unplug(slot, force=False)
    if real:
        assert await images.holds(images.path("disk-2"), ord("h"), 0, 1)
    await console.close()


@pytest.mark.parametrize("unplug_timeout", [0.3])
async def test_a_guest_that_does_not_let_go_keeps_its_disk_unless_it_is_forced(bench: Bench, images: Images) -> None:
    """Its CPUs do not run, so it cannot."""
    domain = await bench.create(bench.kind.spec(other_config={"sim:keeps-devices": "true"}))
    disks, slot = bench.backend.disks, GuestDisk(bench.backend, domain, "1").slot
    disk = await a_disk(images, "1")
    await disks.plug(slot, disk)
    with pytest.raises(ApiError) as caught:
        await disks.unplug(slot, force=False)
    assert caught.value.description == ["DEVICE_DETACH_TIMEOUT", "VBD", slot.vbd]
    assert await disks.plugged(domain.vm.uuid) == {"1"}
    await disks.mirror(slot, DiskMirror(dp="", target=images.backend(await images.make("target"))))
    for _ in range(2):
        await disks.unplug(slot, force=True)
    assert await disks.plugged(domain.vm.uuid) == set()
    assert (await disks.chain(slot)).images == []
    if bench.backend.name == "qemu":
        assert await images.holds(images.path("disk-1"), 0)  # nobody has it locked
        assert await images.holds(images.path("target"), 0)
        with pytest.raises(ApiError, match="DEVICE_ATTACH_TIMEOUT"):  # the guest still holds the former device
            await disks.plug(slot, disk)


@pytest.mark.parametrize("unplug_timeout", [30.0])
async def test_a_guest_that_still_boots_lets_go_of_its_disks_once_it_can(bench: Bench, images: Images) -> None:
    start, later = await a_disk(images, "0"), await a_disk(images, "1")
    domain = await bench.start(bench.kind.spec(vbds=[start.spec]), [start])
    disks = bench.backend.disks
    await disks.plug(GuestDisk(bench.backend, domain, "1").slot, later)
    assert await disks.plugged(domain.vm.uuid) == {"0", "1"}
    for device in ("0", "1"):
        await disks.unplug(GuestDisk(bench.backend, domain, device).slot, force=False)
    assert await disks.plugged(domain.vm.uuid) == set()


async def test_a_disk_of_the_start_can_be_unplugged_by_force(bench: Bench, images: Images) -> None:
    disk = await a_disk(images, "0")
    domain = await bench.create(specs.vm(vbds=[disk.spec]), [disk])
    await bench.backend.disks.unplug(GuestDisk(bench.backend, domain, "0").slot, force=True)
    assert await bench.backend.disks.plugged(domain.vm.uuid) == set()


async def test_media_come_and_go_in_a_drive(bench: Bench, images: Images) -> None:
    drive, disk = specs.empty_cd("3"), specs.disk("3", type="CD", mode="RO")
    domain = await bench.start(specs.vm(vbds=[drive]), [Disk(drive)])
    disks, slot = bench.backend.disks, GuestDisk(bench.backend, domain, "3").slot
    path = await images.make("cd")
    for _ in range(2):
        for _ in range(2):
            await disks.plug(slot, images.disk(disk, path))
        assert (await disks.chain(slot)).images == [path]
        for _ in range(2):
            await disks.unplug(slot, force=False)
        assert (await disks.chain(slot)).images == []
    if bench.backend.name == "qemu":
        assert await images.holds(path, 0)


async def test_a_medium_that_the_guest_has_ejected_is_seen(bench: Bench, images: Images) -> None:
    if bench.backend.name == "simulator":
        pytest.skip("a simulated guest does not touch its drives")
    backend = bench.backend
    assert isinstance(backend, QemuBackend)
    drive, disk = specs.empty_cd("3"), specs.disk("3", type="CD", mode="RO")
    domain = await bench.create(specs.vm(vbds=[drive]), [Disk(drive)])
    slot, opened = GuestDisk(backend, domain, "3").slot, asyncio.Event()
    backend.disk_news.changed = lambda vm: opened.set()
    await backend.disks.plug(slot, images.disk(disk, await images.make("cd")))
    assert not await backend.disks.ejected(slot)
    opened.clear()
    # what a guest's own command comes to
    await backend.guest(domain.vm.uuid).execute("blockdev-open-tray", id="vbd-3", force=True)
    await asyncio.wait_for(opened.wait(), 5)
    assert await backend.disks.ejected(slot)
    await backend.disks.unplug(slot, force=False)
    assert not await backend.disks.ejected(slot)


async def test_after_the_connection_to_a_guest_was_lost_its_disks_are_to_be_looked_at(bench: Bench) -> None:
    if bench.backend.name == "simulator":
        pytest.skip("there is no connection")
    backend, told = bench.backend, asyncio.Queue[str]()
    assert isinstance(backend, QemuBackend)
    backend.disk_news.changed = lambda vm: told.put_nowait("changed")
    backend.disk_news.stalled = lambda vm: told.put_nowait("stalled")
    domain = await bench.create(bench.kind.spec())
    client = backend.guest(domain.vm.uuid)._client
    assert client is not None
    assert told.empty(), "nothing was missed of a new guest"
    await client.disconnect()
    assert [await asyncio.wait_for(told.get(), 20) for _ in range(2)] == ["changed", "stalled"]


async def test_a_disk_that_cannot_be_opened_leaves_nothing(bench: Bench, images: Images) -> None:
    if bench.backend.name == "simulator":
        pytest.skip("a simulated disk can always be opened")
    domain = await bench.create(bench.kind.spec())
    disks, slot = bench.backend.disks, GuestDisk(bench.backend, domain, "1").slot
    absent = images.disk(specs.disk("1"), images.path("absent"))
    with pytest.raises(ApiError, match="No such file"):
        await disks.plug(slot, absent)
    await disks.plug(slot, await a_disk(images, "1"))
    assert await disks.plugged(domain.vm.uuid) == {"1"}


async def test_a_machine_takes_as_many_disks_as_it_has_slots(bench: Bench, images: Images) -> None:
    if bench.backend.name == "simulator":
        pytest.skip("a simulated machine has room for all")
    domain = await bench.create(bench.kind.spec())
    for number in range(16):
        disk = await a_disk(images, str(number))
        await bench.backend.disks.plug(GuestDisk(bench.backend, domain, str(number)).slot, disk)
    with pytest.raises(ApiError, match="OPERATION_NOT_ALLOWED"):
        await bench.backend.disks.plug(GuestDisk(bench.backend, domain, "16").slot, await a_disk(images, "16"))
