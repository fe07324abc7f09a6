"""A disk that moves under a simulated VM, over the bus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.contracts import vm as contract
from shared.contracts import vm_disks
from shared.contracts.storage import DiskOpen
from shared.contracts.vm import VbdSpec, VmReboot, VmShutdown, VmSpec, VmStart
from shared.contracts.vm_disks import Chain, DiskId, VbdMove, VbdMoved
from shared.errors import ApiError
from tests.vm import specs
from tests.vm.neighbours import HOST, Pool

FORMER = specs.disk("0", sr="sr-1", location="former", vdi="OpaqueRef:former")
NEW = specs.disk("0", sr="sr-2", location="new", vdi="OpaqueRef:new")


@pytest.fixture
async def pool(short_folder: Path) -> AsyncIterator[Pool]:
    made = Pool(short_folder)
    await made.open()
    await made.start_service()
    yield made
    await made.close()


@pytest.fixture
async def vm(pool: Pool) -> VmSpec:
    made = specs.vm(vbds=[FORMER])
    await pool.bus.call(contract.START, VmStart(vm=made), host=HOST)
    return made


def opened(pool: Pool) -> dict[str, DiskOpen]:
    return pool.neighbours[HOST].open


async def ended(pool: Pool, vm: VmSpec, vbd: VbdSpec = NEW) -> VbdMoved:
    return await pool.bus.call(vm_disks.VBD_MOVE_END, VbdMove(vm=vm.uuid, vbd=vbd), host=HOST)


async def test_a_moved_disk_is_the_vms_over_restarts_of_the_service_and_reboots(pool: Pool, vm: VmSpec) -> None:
    dp = f"vbd/{vm.uuid}/0"
    for _ in range(2):  # asked again, nothing changes
        state = await pool.bus.call(vm_disks.VBD_MOVE, VbdMove(vm=vm.uuid, vbd=NEW), host=HOST)
        assert state.disks == {NEW.ref: NEW.vdi}
        assert [(name, one.location) for name, one in opened(pool).items()] == [(dp, "new")]
    await pool.close_service(pool.services[0])
    await pool.start_service()
    assert await ended(pool, vm) == VbdMoved(moved=True, known=True)
    known_as = f"vbd/{vm.uuid}/0/{NEW.vdi}"
    chains = [await pool.bus.call(vm_disks.DISK_CHAIN, DiskId(dp=name), host=HOST) for name in (dp, known_as)]
    assert chains == [Chain(images=["/nowhere"])] * 2
    again = VmSpec(**{name: getattr(vm, name) for name in VmSpec.__struct_fields__ if name != "vbds"}, vbds=[NEW])
    await pool.bus.call(contract.REBOOT, VmReboot(vm=again), host=HOST)
    assert [one.location for one in opened(pool).values()] == ["new"]
    await pool.bus.call(contract.SHUTDOWN, VmShutdown(vm=vm.uuid), host=HOST)
    assert (await ended(pool, vm), opened(pool)) == (VbdMoved(moved=False, known=False), {})


@pytest.mark.parametrize("method", ["open", "hand over"])
async def test_a_storage_service_that_refuses_leaves_the_move_undone_or_to_be_completed(
    pool: Pool, vm: VmSpec, method: str
) -> None:
    storage = pool.neighbours[HOST]
    storage.refuse[method] = ApiError("SR_BACKEND_FAILURE_46", "", "not now", "")
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_46"):
        await pool.bus.call(vm_disks.VBD_MOVE, VbdMove(vm=vm.uuid, vbd=NEW), host=HOST)
    storage.refuse.clear()
    moved = method == "hand over"
    assert await ended(pool, vm) == VbdMoved(moved=moved, known=True)
    assert [one.location for one in opened(pool).values()] == ["new" if moved else "former"]
    await pool.bus.call(contract.SHUTDOWN, VmShutdown(vm=vm.uuid), host=HOST)
    assert await ended(pool, vm) == VbdMoved(moved=moved, known=True)


async def test_a_disk_that_the_vm_does_not_have_does_not_move(pool: Pool, vm: VmSpec) -> None:
    other = specs.disk("1", sr="sr-2", location="new", vdi="OpaqueRef:new")
    with pytest.raises(ApiError, match="DEVICE_NOT_ATTACHED"):
        await pool.bus.call(vm_disks.VBD_MOVE, VbdMove(vm=vm.uuid, vbd=other), host=HOST)
    assert await ended(pool, vm, other) == VbdMoved(moved=False, known=True)
    assert [one.location for one in opened(pool).values()] == ["former"]
