"""A disk that moves between two SRs under a VM in QEMU: whatever ends at whichever point, the VM has one whole disk."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.contracts import storage, vm, vm_disks
from shared.errors import ApiError
from tests.storage.motion.process import MIB, SIZE, Host, Moving

pytestmark = pytest.mark.qemu

BEFORE = ("note 1", "mirroring", "ready")
AT_THE_END = ("changed", "note 3", "hand over: after intent", "note 4")
"""Those inside of storage's part have their own tests (`test_hand_over.py`)."""


@pytest.fixture
async def moving(short_folder: Path, guest_dir: Path) -> AsyncIterator[Moving]:
    host = Host(short_folder, guest_dir)
    await host.start()
    made = Moving(host, short_folder)
    await made.prepare()
    await made.write()
    yield made
    await shut_down(made)
    assert (await made.datapaths(), made.leases()) == ({}, [])
    assert set(made.images()) <= {made.at[1]}
    await host.stop()


async def shut_down(moving: Moving) -> None:
    """Returns when nothing of the VM is left, whoever ended it."""
    try:
        await moving.host.call(vm.SHUTDOWN, vm.VmShutdown(vm=moving.spec.uuid))
    except ApiError as error:
        if error.code != "VM_BAD_POWER_STATE":
            raise


def only_its_disk(moving: Moving) -> dict[str, tuple[str, str]]:
    return {f"vbd/{moving.spec.uuid}/0": moving.at}


async def test_what_the_guest_writes_meanwhile_is_in_the_new_disk(moving: Moving) -> None:
    await moving.host.call(vm.UNPAUSE, vm.VmId(vm=moving.spec.uuid))
    target = await moving.target()
    await moving.host.tell("hold", at="mirroring")
    _, answer = moving.begin(target)
    await moving.host.holding.wait()
    await moving.write()
    await moving.host.tell("go")
    state = await answer
    assert "running" in await moving.host.tell("guest", vm=moving.spec.uuid, line="info status")
    assert list(state["disks"].values()) == [f"OpaqueRef:{target[1]}"]
    assert await moving.end(target)
    await moving.write()
    assert await moving.holds_all()
    assert await moving.datapaths() == only_its_disk(moving)


async def test_a_move_that_is_cancelled_leaves_the_vm_where_it_was(moving: Moving) -> None:
    for point in ("mirroring", "ready"):
        target = await moving.target()
        await moving.host.tell("hold", at=point)
        moving.host.holding.clear()
        id, answer = moving.begin(target)
        await moving.host.holding.wait()
        await moving.write()
        await moving.host.tell("cancel", id=id)
        with pytest.raises(ApiError, match="CANCELLED"):
            await answer
        assert not await moving.end(target)
        assert await moving.holds_all()
        assert await moving.datapaths() == only_its_disk(moving)


async def test_a_kill_of_the_services_at_any_point_leaves_one_whole_disk(moving: Moving) -> None:
    """And the VM writes on, before and after. What is asked again succeeds."""
    for point in (*BEFORE, *AT_THE_END):
        target = await moving.target()
        await moving.host.tell("die", at=point)
        _, answer = moving.begin(target)
        await moving.host.died()
        with pytest.raises(ConnectionError):
            await answer
        await moving.host.start()
        if point == "ready":  # the bus brings the request again
            await moving.begin(target)[1]
        moved = await moving.end(target)
        assert moved == (point in AT_THE_END or point == "ready"), point
        await moving.write()
        assert await moving.holds_all(), point
        assert await moving.datapaths() == only_its_disk(moving), point


async def test_a_disk_that_has_moved_is_snapshotted_and_grows_under_its_vm(moving: Moving) -> None:
    """Its SR finds the VM that has it, by the name that it was told."""
    target = await moving.target()
    await moving.begin(target)[1]
    assert await moving.end(target)
    sr, location = moving.at
    before = bytes(moving.model)
    clone = storage.VdiClone(sr=sr, location=location, uuid="5a000000-0000-4000-8000-0000000000aa", snapshot=True)
    snapshot = await moving.host.call(storage.VDI_CLONE, clone)
    await moving.write()
    grown = storage.VdiResize(sr=sr, location=location, virtual_size=2 * SIZE)
    assert (await moving.host.call(storage.VDI_RESIZE, grown)).virtual_size == 2 * SIZE
    chain = await moving.host.call(vm_disks.DISK_CHAIN, vm_disks.DiskId(dp=f"vbd/{moving.spec.uuid}/0"))
    assert (len(chain.images), chain.virtual_size) == (2, 2 * SIZE)
    moving.model.extend(bytes(SIZE))
    assert await moving.content(chain.images[0]) == bytes(moving.model)
    assert await moving.content(chain.images[1]) == before
    await shut_down(moving)
    for gone in (snapshot.location, location):
        await moving.host.call(storage.VDI_DESTROY, storage.VdiRef(sr=sr, location=gone))
    moving.at = ("", "")


@pytest.mark.parametrize("point", ["mirroring", "changed", "pivoted"])
async def test_the_end_of_qemu_leaves_the_disk_that_counts(moving: Moving, point: str) -> None:
    target = await moving.target()
    await moving.host.tell("hold", at=point)
    _, answer = moving.begin(target)
    await moving.host.holding.wait()
    await moving.write()
    await moving.flush()
    os.kill(moving.state.pid, signal.SIGKILL)
    await moving.host.tell("go")
    if point == "mirroring":
        with pytest.raises(ApiError, match="MIRROR_FAILED"):
            await answer
    else:
        await answer
    await shut_down(moving)
    assert await moving.end(target) == (point != "mirroring")
    assert await moving.content() == bytes(moving.model)


@pytest.mark.parametrize("point", ["changed", "pivoted"])
async def test_the_disk_that_counts_is_known_when_the_services_and_qemu_die(moving: Moving, point: str) -> None:
    target = await moving.target()
    await moving.host.tell("die", at=point)
    _, answer = moving.begin(target)
    await moving.host.died()
    with pytest.raises(ConnectionError):
        await answer
    os.kill(moving.state.pid, signal.SIGKILL)
    await moving.host.start()
    await shut_down(moving)
    assert await moving.end(target) == (point == "pivoted")
    assert await moving.content() == bytes(moving.model)


async def test_a_target_that_cannot_be_opened_or_is_too_small_fails_alone(moving: Moving) -> None:
    sr, location = await moving.target()
    reader = storage.DiskOpen(dp="task/reader", sr=sr, location=location, writable=False)
    await moving.host.call(storage.OPEN, storage.Open(disks=[reader]))
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await moving.begin((sr, location))[1]
    await moving.host.call(storage.CLOSE, storage.Close(dps=["task/reader"]))
    small = (sr, await moving.disk(sr, MIB))
    with pytest.raises(ApiError):
        await moving.begin(small)[1]
    assert SIZE > MIB
    for target in (small, (sr, location)):
        assert not await moving.end(target)
    assert await moving.holds_all()
    assert await moving.datapaths() == only_its_disk(moving)
