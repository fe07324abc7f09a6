"""What every hypervisor backend does with the disks of running domains. Runs on the simulator and on QEMU."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.vm.backend import Domain
from services.vm.disks import Slot
from shared.contracts.vm import PowerState
from shared.contracts.vm_disks import Chain, DiskCommit, DiskMirror
from shared.errors import ApiError
from tests.vm import specs
from tests.vm.backends import Bench, Kind, QemuKind, SimulatorKind
from tests.vm.images import MB, GuestDisk, Images

NOWHERE = Slot("00000000-0000-4000-8000-000000000000", "0", "OpaqueRef:vbd-0")


async def unheard(_: float) -> None:
    """Progress that nobody asked for."""


@dataclass
class Run:
    """A domain whose disk 0 is the image `base`."""

    bench: Bench
    domain: Domain
    images: Images

    @property
    def disk(self) -> GuestDisk:
        return GuestDisk(self.bench.backend, self.domain, "0")

    @property
    def slot(self) -> Slot:
        return self.disk.slot

    async def chain(self) -> list[str]:
        return (await self.bench.backend.disks.chain(self.slot)).images

    async def snapshot(self, name: str, over: str) -> str:
        overlay = await self.images.make(name, over=over)
        await self.bench.backend.disks.snapshot(self.slot, overlay)
        return overlay

    async def commit(self, top: str, base: str) -> None:
        wanted = DiskCommit(dp="", top=self.images.path(top), base=self.images.path(base))
        await self.bench.backend.disks.commit(self.slot, wanted, unheard)


@pytest.fixture(
    params=[
        ("simulator", False),
        ("simulator", True),
        pytest.param(("qemu", True), marks=pytest.mark.qemu),
    ],
    ids=["simulator", "simulator-real", "qemu"],
)
def kind_and_images(request: pytest.FixtureRequest, short_folder: Path) -> tuple[Kind, Images]:
    name, real = request.param
    if name == "qemu":
        return QemuKind(short_folder, request.getfixturevalue("guest_dir")), Images(short_folder, real=real)
    return SimulatorKind(short_folder), Images(short_folder, real=real)


@pytest.fixture
def kind(kind_and_images: tuple[Kind, Images]) -> Kind:
    return kind_and_images[0]


@pytest.fixture
async def run(bench: Bench, kind_and_images: tuple[Kind, Images]) -> Run:
    images = kind_and_images[1]
    vbd = specs.disk("0")
    disk = images.disk(vbd, await images.make("base"))
    return Run(bench, await bench.create(specs.vm(vbds=[vbd]), [disk]), images)


async def test_a_chain_is_what_the_domain_has_open(run: Run) -> None:
    assert await run.chain() == [run.images.path("base")]
    assert await run.bench.backend.disks.chain(NOWHERE) == Chain()
    assert await run.bench.backend.disks.chain(run.slot._replace(device="7")) == Chain()


async def test_after_a_snapshot_the_guest_goes_on_in_the_new_image(run: Run) -> None:
    await run.disk.write(1)
    over = await run.snapshot("over", "base")
    assert await run.chain() == [over, run.images.path("base")]
    await run.disk.write(2, MB)
    assert await run.disk.reads(1)
    assert await run.disk.reads(2, MB)
    await run.bench.backend.disks.snapshot(run.slot, over)  # asked again
    assert len(await run.chain()) == 2
    await run.bench.backend.destroy(run.domain)
    if run.bench.backend.name == "qemu":
        assert await run.images.holds(run.images.path("base"), 0, MB)
        assert await run.images.holds(over, 2, MB)


@pytest.mark.parametrize(("top", "base"), [("c", "a"), ("c", "b"), ("b", "a")])
async def test_a_commit_moves_content_down_and_lets_go_of_what_was_above(run: Run, top: str, base: str) -> None:
    paths = {name: run.images.path(name) for name in ("base", "a", "b", "c", "d")}
    for pattern, (name, over) in enumerate([("a", "base"), ("b", "a"), ("c", "b")], 1):
        await run.snapshot(name, over)
        await run.disk.write(pattern, pattern * MB)
        await run.disk.write(pattern, 0, 65536)
    await run.commit(top, base)
    order = ["c", "b", "a", "base"]
    left = [name for name in order if not order.index(top) <= order.index(name) < order.index(base)]
    assert await run.chain() == [paths[name] for name in left]
    await run.commit(top, base)  # asked again
    for pattern in (1, 2, 3):
        assert await run.disk.reads(pattern, pattern * MB)
    assert await run.disk.reads(3)
    await run.snapshot("d", left[0])
    await run.disk.write(4)
    await run.bench.backend.destroy(run.domain)
    if run.bench.backend.name == "qemu":
        assert await run.images.holds(paths["d"], 4)
        assert await run.images.holds(paths[left[0]], 3)
        assert await run.images.holds(paths["d"], 2, 2 * MB)


async def test_a_domain_that_is_found_again_has_the_images_it_had(run: Run) -> None:
    over = await run.snapshot("over", "base")
    await run.disk.write(5)
    await run.bench.reopen(PowerState.PAUSED)
    assert await run.chain() == [over, run.images.path("base")]
    await run.commit("over", "base")
    assert await run.chain() == [run.images.path("base")]
    assert await run.disk.reads(5)


async def test_images_that_are_not_there_cannot_be_committed(run: Run) -> None:
    await run.snapshot("over", "base")
    for top, base in [("other", "elsewhere"), ("base", "over"), ("over", "elsewhere")]:
        with pytest.raises(ApiError, match="INTERNAL_ERROR"):
            await run.commit(top, base)
    assert len(await run.chain()) == 2


async def test_operations_on_a_disk_that_is_not_there_say_so(run: Run) -> None:
    disks = run.bench.backend.disks
    commit = DiskCommit(dp="", top="/a", base="/b")
    mirror = DiskMirror(dp="", target=run.images.backend("/a"))
    for slot in (NOWHERE, run.slot._replace(device="7")):
        for ask in (
            disks.snapshot(slot, "/a"),
            disks.commit(slot, commit, unheard),
            disks.resize(slot, MB),
            disks.pause(slot),
            disks.resume(slot, run.images.backend("/a"), running=False),
            disks.mirror(slot, mirror),
            disks.mirror_state(slot),
        ):
            with pytest.raises(ApiError) as caught:
                await ask
            assert caught.value.description == ["DEVICE_NOT_ATTACHED", "OpaqueRef:vbd-0"]


async def test_a_disk_that_grows_has_the_new_size_and_its_content(run: Run) -> None:
    await run.disk.write(1)
    for _ in range(2):
        await run.bench.backend.disks.resize(run.slot, 8 * MB)
    assert (await run.bench.backend.disks.chain(run.slot)).virtual_size == 8 * MB
    await run.disk.write(2, 7 * MB)
    assert await run.disk.reads(1)
    assert await run.disk.reads(2, 7 * MB)


async def test_a_paused_disk_is_closed_and_resumed_with_its_content(run: Run) -> None:
    disks = run.bench.backend.disks
    await run.bench.backend.unpause(run.domain.vm.uuid)
    await run.disk.write(1)
    for _ in range(2):
        await disks.pause(run.slot)
        assert await run.chain() == []
    await run.bench.backend.unpause(run.domain.vm.uuid)  # comes true with the disk
    if run.bench.backend.name == "qemu":
        assert await run.images.holds(run.images.path("base"), 1)  # nobody has it locked
        await run.bench.reopen(PowerState.RUNNING)
        disks = run.bench.backend.disks
    for _ in range(2):
        await disks.resume(run.slot, None, running=True)
        assert await run.chain() == [run.images.path("base")]
    assert await run.disk.reads(1)
    assert (await run.bench.reopen(PowerState.RUNNING))[run.domain.vm.uuid] is PowerState.RUNNING


def _opened(pid: int) -> set[str]:
    return {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}


async def test_a_disk_that_was_resumed_and_snapshotted_is_closed_whole_by_a_pause(run: Run) -> None:
    disks = run.bench.backend.disks
    await run.disk.write(1)
    await disks.pause(run.slot)
    await disks.resume(run.slot, None, running=False)
    await run.snapshot("over", "base")
    await run.snapshot("more", "over")
    await disks.pause(run.slot)
    if run.bench.backend.name == "qemu":
        pid = run.bench.built[run.domain.domid][1].pid
        assert _opened(pid).isdisjoint(run.images.path(name) for name in ("base", "over", "more"))


async def test_a_paused_disk_can_be_resumed_on_another_image(run: Run) -> None:
    disks = run.bench.backend.disks
    await run.disk.write(1)
    await disks.pause(run.slot)
    over = await run.images.make("over", over="base")
    await disks.resume(run.slot, run.images.backend(over), running=False)
    assert (await run.chain())[0] == over
    assert await run.disk.reads(1)


async def test_a_mirrored_disk_goes_on_on_its_target(run: Run) -> None:
    disks = run.bench.backend.disks
    await run.disk.write(1)
    await run.snapshot("over", "base")
    await run.disk.write(2, MB)
    wanted = DiskMirror(dp="", target=run.images.backend(await run.images.make("target")))
    for _ in range(2):
        await disks.mirror(run.slot, wanted)
    with pytest.raises(ApiError, match="OTHER_OPERATION_IN_PROGRESS"):
        await disks.snapshot(run.slot, run.images.path("other"))
    await until_ready(run)
    await run.disk.write(3, 2 * MB)
    await disks.mirror_end(run.slot, pivot=True)
    assert await run.chain() == [run.images.path("target")]
    assert not (await disks.mirror_state(run.slot)).running
    for number in range(3):
        assert await run.disk.reads(number + 1, number * MB)
    await run.bench.backend.destroy(run.domain)
    if run.bench.backend.name == "qemu":
        assert await run.images.holds(run.images.path("target"), 3, 2 * MB)
        assert await run.images.holds(run.images.path("over"), 3, 2 * MB)  # it was written to both


async def test_a_mirror_that_is_given_up_leaves_the_disk_where_it_was(run: Run) -> None:
    disks = run.bench.backend.disks
    target = await run.images.make("target")
    await disks.mirror(run.slot, DiskMirror(dp="", target=run.images.backend(target)))
    for _ in range(2):
        await disks.mirror_end(run.slot, pivot=False)
    assert await run.chain() == [run.images.path("base")]
    with pytest.raises(ApiError, match="INTERNAL_ERROR"):
        await disks.mirror_end(run.slot, pivot=True)
    if run.bench.backend.name == "qemu":
        assert await run.images.holds(target, 0)  # nobody has it locked


async def until_ready(run: Run) -> None:
    async with asyncio.timeout(20):
        while not (await run.bench.backend.disks.mirror_state(run.slot)).ready:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.02)
