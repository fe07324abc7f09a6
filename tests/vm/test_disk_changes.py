"""Disks of running VMs, over the bus: simulated hosts, a service that is killed, and one QEMU."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.vm import disk_changes
from services.vm.disks import Slot
from services.vm.simulator.disks import SimulatedDisks
from shared.contracts import storage, vm_disks
from shared.contracts import vm as contract
from shared.contracts.vm import Cause, PowerState, VbdSpec, VmId, VmReboot, VmSpec, VmStart, VmState
from shared.contracts.vm_disks import (
    Chain,
    DiskCommit,
    DiskId,
    DiskMirror,
    DiskMirrorEnd,
    DiskResize,
    DiskResume,
    DiskSnapshot,
    VbdPlug,
    VbdUnplug,
)
from shared.errors import ApiError
from tests.vm import specs
from tests.vm.images import Images
from tests.vm.neighbours import HOST, Pool
from tests.vm.processes import VmService

REFUSED = ApiError("SR_BACKEND_FAILURE_46", "", "the disk is broken", "")
DISK = specs.disk("1")


@pytest.fixture
async def pool(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    monkeypatch.setattr(disk_changes, "RELEASE_RETRY", 0.05)
    made = Pool(short_folder)
    await made.open()
    await made.start_service()
    yield made
    await made.close()


async def start(pool: Pool, vm: VmSpec) -> VmState:
    return await pool.bus.call(contract.START, VmStart(vm=vm), host=HOST)


async def query(pool: Pool, vm: VmSpec) -> VmState:
    return await pool.bus.call(contract.QUERY, VmId(vm=vm.uuid), host=HOST)


async def plug(pool: Pool, vm: VmSpec, vbd: VbdSpec = DISK) -> VmState:
    return await pool.bus.call(vm_disks.VBD_PLUG, VbdPlug(vm=vm.uuid, vbd=vbd), host=HOST)


async def unplug(pool: Pool, vm: VmSpec, vbd: VbdSpec = DISK, *, force: bool = False) -> VmState:
    request = VbdUnplug(vm=vm.uuid, vbd=vbd.ref, force=force)
    return await pool.bus.call(vm_disks.VBD_UNPLUG, request, host=HOST)


async def eject(pool: Pool, vm: VmSpec, vbd: VbdSpec) -> VmState:
    return await pool.bus.call(vm_disks.VBD_EJECT, VbdUnplug(vm=vm.uuid, vbd=vbd.ref), host=HOST)


def dp(vm: VmSpec, vbd: VbdSpec = DISK) -> str:
    return f"vbd/{vm.uuid}/{vbd.device}"


def opened(pool: Pool) -> set[str]:
    return set(pool.neighbours[HOST].open)


async def test_a_plugged_disk_is_open_and_everybody_is_told(pool: Pool) -> None:
    vm = specs.vm()
    await start(pool, vm)
    state = await plug(pool, vm)
    assert state.vbds == [DISK.ref]
    assert opened(pool) == {dp(vm)}
    await pool.heard(lambda event: event.state == state)
    assert await plug(pool, vm) == state  # asked again
    state = await unplug(pool, vm)
    assert (state.vbds, opened(pool)) == ([], set())
    assert await unplug(pool, vm) == state


async def test_a_plugged_disk_stays_over_a_restart_of_the_service_and_a_reboot_of_the_guest(pool: Pool) -> None:
    vm = specs.vm(other_config={"sim:guest-reboot-after": "0.3"})
    before = await start(pool, vm)
    await plug(pool, vm)
    await pool.close_service(pool.services[0])
    await pool.start_service()
    assert (await query(pool, vm)).vbds == [DISK.ref]
    after = await pool.state(vm.uuid, PowerState.RUNNING, Cause.GUEST_REBOOT)
    assert after.state.domid > before.domid
    assert after.state.vbds == [DISK.ref]
    assert opened(pool) == {dp(vm)}
    await unplug(pool, vm)
    assert opened(pool) == set()


async def test_a_medium_that_the_guest_has_ejected_is_closed_and_everybody_is_told(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = specs.disk("3", type="CD", mode="RO", vdi="OpaqueRef:vdi")
    vm = specs.vm(vbds=[drive], domain_type="hvm")
    state = await start(pool, vm)
    assert (state.disks, state.empty, opened(pool)) == ({drive.ref: drive.vdi}, [], {dp(vm, drive)})
    await pool.close_service(pool.services[0])

    async def ejected(self: SimulatedDisks, slot: Slot) -> bool:
        return slot.device == "3"

    monkeypatch.setattr(SimulatedDisks, "ejected", ejected)
    await pool.start_service()
    told = await pool.heard(lambda event: event.state.empty == [drive.ref])
    assert (told.state.vbds, told.state.disks) == ([drive.ref], {})
    assert opened(pool) == set()


async def test_the_end_of_a_vm_closes_what_was_plugged(pool: Pool) -> None:
    vm = specs.vm()
    await start(pool, vm)
    await plug(pool, vm)
    await pool.bus.call(contract.SHUTDOWN, contract.VmShutdown(vm=vm.uuid), host=HOST)
    assert opened(pool) == set()


async def test_a_plugged_disk_is_closed_when_the_hypervisor_dies(pool: Pool) -> None:
    vm = specs.vm(other_config={"sim:process-dies-after": "0.3"})
    await start(pool, vm)
    await plug(pool, vm)
    await pool.state(vm.uuid, PowerState.HALTED, Cause.PROCESS_DIED)
    assert opened(pool) == set()


async def test_a_plug_that_fails_changes_nothing(pool: Pool) -> None:
    vm = specs.vm()
    await start(pool, vm)
    near = pool.neighbours[HOST]
    near.refuse["open"] = REFUSED
    with pytest.raises(ApiError) as caught:
        await plug(pool, vm)
    assert caught.value.description == REFUSED.description
    assert ((await query(pool, vm)).vbds, opened(pool)) == ([], set())
    near.refuse.clear()
    assert (await plug(pool, vm)).vbds == [DISK.ref]


async def test_a_plug_that_is_cancelled_leaves_nothing_open(pool: Pool) -> None:
    vm = specs.vm()
    await start(pool, vm)
    near = pool.neighbours[HOST]
    release = near.hold_back("open")
    plugging = asyncio.create_task(plug(pool, vm))
    await near.held["open"].wait()
    plugging.cancel()
    release.set()
    await asyncio.gather(plugging, return_exceptions=True)
    await pool.state(vm.uuid, PowerState.RUNNING)
    await near.all_closed()
    assert (await query(pool, vm)).vbds == []


async def test_another_disk_at_the_same_place_is_refused(pool: Pool) -> None:
    vm = specs.vm()
    await start(pool, vm)
    await plug(pool, vm)
    with pytest.raises(ApiError, match="DEVICE_ALREADY_ATTACHED"):
        await plug(pool, vm, specs.disk("1", location="other"))
    assert opened(pool) == {dp(vm)}


async def test_a_disk_that_a_vm_could_not_start_with_is_not_plugged(pool: Pool) -> None:
    vm = specs.vm()
    await start(pool, vm)
    for wrong, code in (
        (specs.disk("-1"), "INVALID_DEVICE"),
        (specs.disk("2", sr="", location=""), "VBD_NOT_REMOVABLE_MEDIA"),
    ):
        with pytest.raises(ApiError, match=code):
            await plug(pool, vm, wrong)
    assert ((await query(pool, vm)).vbds, opened(pool)) == ([], set())


async def test_a_guest_that_keeps_its_disk_has_it_until_it_is_forced(pool: Pool) -> None:
    vm = specs.vm(other_config={"sim:keeps-devices": "true"}, vbds=[DISK])
    await start(pool, vm)
    with pytest.raises(ApiError, match="DEVICE_DETACH_TIMEOUT"):
        await unplug(pool, vm)
    assert ((await query(pool, vm)).vbds, opened(pool)) == ([DISK.ref], {dp(vm)})
    await unplug(pool, vm, force=True)
    assert ((await query(pool, vm)).vbds, opened(pool)) == ([], set())


async def test_a_disk_that_the_guest_let_go_of_and_storage_cannot_close_is_closed_later(pool: Pool) -> None:
    vm = specs.vm(vbds=[DISK])
    await start(pool, vm)
    near = pool.neighbours[HOST]
    near.refuse["close"] = REFUSED
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_46"):
        await unplug(pool, vm)
    assert (await query(pool, vm)).vbds == []
    assert opened(pool) == {dp(vm)}
    near.refuse.clear()
    await near.all_closed()
    assert (await plug(pool, vm)).vbds == [DISK.ref]


async def test_disks_of_a_vm_that_is_halted_or_paused_are_not_unplugged(pool: Pool) -> None:
    vm = specs.vm(vbds=[DISK])
    with pytest.raises(ApiError, match="VM_BAD_POWER_STATE"):
        await plug(pool, vm)
    await start(pool, vm)
    await pool.bus.call(contract.PAUSE, VmId(vm=vm.uuid), host=HOST)
    with pytest.raises(ApiError, match="VM_BAD_POWER_STATE"):
        await unplug(pool, vm)
    await unplug(pool, vm, force=True)


async def test_a_drive_stays_when_its_medium_goes(pool: Pool) -> None:
    drive = specs.empty_cd("3")
    medium = specs.disk("3", type="CD", mode="RO", bootable=False)
    vm = specs.vm(domain_type="hvm", vbds=[drive])
    assert (await start(pool, vm)).vbds == [drive.ref]
    for _ in range(2):
        await pool.bus.call(vm_disks.VBD_INSERT, VbdPlug(vm=vm.uuid, vbd=medium), host=HOST)
        assert opened(pool) == {dp(vm, drive)}
        assert (await eject(pool, vm, drive)).vbds == [drive.ref]
        assert opened(pool) == set()
    near = pool.neighbours[HOST]
    near.refuse["open"] = REFUSED
    with pytest.raises(ApiError):
        await pool.bus.call(vm_disks.VBD_INSERT, VbdPlug(vm=vm.uuid, vbd=medium), host=HOST)
    assert (await query(pool, vm)).vbds == [drive.ref]


async def test_a_reboot_with_another_configuration_takes_that(pool: Pool) -> None:
    vm = specs.vm()
    await start(pool, vm)
    await plug(pool, vm)
    await pool.bus.call(contract.REBOOT, VmReboot(vm=vm), host=HOST)
    assert ((await query(pool, vm)).vbds, opened(pool)) == ([], set())


async def test_images_are_asked_for_and_changed_by_datapath(pool: Pool) -> None:
    vm = specs.vm(vbds=[DISK])
    bus, disk = pool.bus, dp(vm)
    assert await bus.call(vm_disks.DISK_CHAIN, DiskId(dp=disk), host=HOST) == Chain()
    with pytest.raises(ApiError) as caught:
        await bus.call(vm_disks.DISK_SNAPSHOT, DiskSnapshot(dp=disk, overlay="/a"), host=HOST)
    assert caught.value.code == "DEVICE_NOT_ATTACHED"
    with pytest.raises(ApiError, match="DEVICE_NOT_ATTACHED"):
        await bus.call(vm_disks.DISK_CHAIN, DiskId(dp="task/OpaqueRef:1"), host=HOST)
    await start(pool, vm)
    base = (await bus.call(vm_disks.DISK_CHAIN, DiskId(dp=disk), host=HOST)).images
    await bus.call(vm_disks.DISK_SNAPSHOT, DiskSnapshot(dp=disk, overlay="/a"), host=HOST)
    await bus.call(vm_disks.DISK_RESIZE, DiskResize(dp=disk, virtual_size=4096), host=HOST)
    chain = await bus.call(vm_disks.DISK_CHAIN, DiskId(dp=disk), host=HOST)
    assert chain == Chain(images=["/a", *base], virtual_size=4096)
    await bus.call(vm_disks.DISK_COMMIT, DiskCommit(dp=disk, top="/a", base=base[0]), host=HOST)
    await bus.call(vm_disks.DISK_PAUSE, DiskId(dp=disk), host=HOST)
    assert not (await bus.call(vm_disks.DISK_CHAIN, DiskId(dp=disk), host=HOST)).images
    await bus.call(vm_disks.DISK_RESUME, DiskResume(dp=disk), host=HOST)
    assert (await bus.call(vm_disks.DISK_CHAIN, DiskId(dp=disk), host=HOST)).images == base
    target = storage.Backend(dp="", kind="file", path="/t", format="none", writable=True)
    await bus.call(vm_disks.DISK_MIRROR, DiskMirror(dp=disk, target=target), host=HOST)
    assert (await bus.call(vm_disks.DISK_MIRROR_STATE, DiskId(dp=disk), host=HOST)).ready
    await bus.call(vm_disks.DISK_MIRROR_END, DiskMirrorEnd(dp=disk, pivot=True), host=HOST)
    assert (await bus.call(vm_disks.DISK_CHAIN, DiskId(dp=disk), host=HOST)).images == ["/t"]


async def test_a_disk_that_is_about_to_be_opened_counts_as_open(pool: Pool) -> None:
    """Storage has opened it: it must not be changed as if nobody had."""
    vm = specs.vm(vbds=[DISK], vifs=[specs.vif()])
    near = pool.neighbours[HOST]
    release = near.hold_back("plug")  # of the VIF
    starting = asyncio.create_task(start(pool, vm))
    await near.held["plug"].wait()
    await near.opened.wait()
    await asyncio.sleep(0.05)  # the answer is on its way
    asked = asyncio.create_task(pool.bus.call(vm_disks.DISK_CHAIN, DiskId(dp=dp(vm)), host=HOST))
    done, _ = await asyncio.wait({asked}, timeout=0.1)
    release.set()
    await starting
    assert not done
    assert (await asked).images


# ---- a service that is killed


@pytest.fixture
async def services(short_folder: Path, guest_dir: Path) -> AsyncIterator[list[VmService]]:
    made: list[VmService] = []
    yield made
    for service in made:
        await service.stop()


@pytest.mark.parametrize("hang_at", ["open-disk", "add-disk", "keep"])
async def test_an_interrupted_plug_leaves_nothing_open_and_can_be_asked_again(
    short_folder: Path, guest_dir: Path, services: list[VmService], hang_at: str
) -> None:
    vm = specs.vm()
    first = await VmService.start(short_folder, guest_dir, hang_at=hang_at, backend="simulator")
    services.append(first)
    await first.call(contract.START, VmStart(vm=vm))
    plugging = asyncio.create_task(first.call(vm_disks.VBD_PLUG, VbdPlug(vm=vm.uuid, vbd=DISK)))
    await first.hanging.wait()
    await first.kill()
    plugging.cancel()
    second = await VmService.start(short_folder, guest_dir, backend="simulator")
    services.append(second)
    state = await second.call(vm_disks.VBD_PLUG, VbdPlug(vm=vm.uuid, vbd=DISK))  # comes after what is settled
    assert state.vbds == [DISK.ref]
    assert await second.calls() == ["close", "open"]


@pytest.mark.qemu
async def test_a_disk_is_where_it_was_going_after_a_kill_on_qemu(
    short_folder: Path, guest_dir: Path, services: list[VmService]
) -> None:
    (short_folder / "disks").mkdir()
    await Images(short_folder / "disks", real=True).make("disk-1")
    vm = specs.vm()
    first = await VmService.start(short_folder, guest_dir, hang_at="keep")
    services.append(first)
    await first.call(contract.START, VmStart(vm=vm))
    plugging = asyncio.create_task(first.call(vm_disks.VBD_PLUG, VbdPlug(vm=vm.uuid, vbd=DISK)))
    await first.hanging.wait()
    await first.kill()
    plugging.cancel()

    second = await VmService.start(short_folder, guest_dir, hang_at="close-disk")
    services.append(second)
    await second.heard(lambda event: event.state.vbds == [DISK.ref])
    chain = await second.call(vm_disks.DISK_CHAIN, DiskId(dp=dp(vm)))
    assert chain.images == [str(short_folder / "disks" / "disk-1.qcow2")]
    request = VbdUnplug(vm=vm.uuid, vbd=DISK.ref, force=True)
    unplugging = asyncio.create_task(second.call(vm_disks.VBD_UNPLUG, request))
    await second.hanging.wait()
    await second.kill()
    unplugging.cancel()

    third = await VmService.start(short_folder, guest_dir)
    services.append(third)
    event = await third.heard(lambda event: event.state.uuid == vm.uuid)
    assert event.state.vbds == []
    await third.call(contract.SHUTDOWN, contract.VmShutdown(vm=vm.uuid))
    assert (await third.calls())[0] == "close"
