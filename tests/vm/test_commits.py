"""Commits that somebody or something interrupts, on QEMU."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from services.vm.backend import StopReason
from services.vm.qemu.backend import QemuBackend
from services.vm.qemu.disks import jobs, nodes
from services.vm.qemu.disks.access import look
from shared.contracts.vm import PowerState
from shared.contracts.vm_disks import DiskCommit
from shared.errors import ApiError
from tests.vm import specs
from tests.vm.backends import Bench, Kind, QemuKind
from tests.vm.images import MB, GuestDisk, Images

pytestmark = pytest.mark.qemu
SLOW = 65536
"""Bytes a second."""


@pytest.fixture
def kind(short_folder: Path, guest_dir: Path) -> Kind:
    return QemuKind(short_folder, guest_dir)


class Case:
    """A domain with two images, some in the upper one, and a commit that has begun and takes its time."""

    def __init__(self, bench: Bench, images: Images) -> None:
        self.bench = bench
        self.images = images
        self.wanted = DiskCommit(dp="", top=images.path("over"), base=images.path("base"))
        self.job = jobs.name_of("commit", "0", self.wanted.top, self.wanted.base)
        self.progress: asyncio.Queue[float] = asyncio.Queue()

    @property
    def backend(self) -> QemuBackend:
        assert isinstance(self.bench.backend, QemuBackend)
        return self.bench.backend

    @property
    def disk(self) -> GuestDisk:
        return GuestDisk(self.backend, self.domain, "0")

    async def begin(self) -> None:
        vbd = specs.disk("0")
        disk = self.images.disk(vbd, await self.images.make("base"))
        self.domain = await self.bench.start(specs.vm(vbds=[vbd]), [disk])
        await self.images.make("over", over="base")
        await self.backend.disks.snapshot(self.disk.slot, self.images.path("over"))
        await self.disk.write(7, 0, 3 * MB)
        await self.disk.flush()
        chain = (await look(self.backend.guest(self.domain.vm.uuid))).images("0")
        await self.execute(
            "block-commit",
            **{
                "job-id": self.job,
                "device": nodes.node("0"),
                "top-node": chain[0].node,
                "base-node": chain[1].node,
                "auto-dismiss": False,
                "speed": SLOW,
            },
        )

    async def execute(self, command: str, **arguments: object) -> None:
        await self.backend.guest(self.domain.vm.uuid).execute(command, **arguments)

    def ask(self) -> asyncio.Task[None]:
        async def heard(progress: float) -> None:
            self.progress.put_nowait(progress)

        return asyncio.create_task(self.backend.disks.commit(self.disk.slot, self.wanted, heard))

    async def chain(self) -> list[str]:
        return (await self.backend.disks.chain(self.disk.slot)).images


@pytest.fixture
async def case(bench: Bench, short_folder: Path) -> Case:
    made = Case(bench, Images(short_folder, real=True))
    await made.begin()
    return made


async def test_the_next_process_of_the_service_joins_a_commit_that_goes_on(case: Case) -> None:
    await case.bench.reopen(PowerState.RUNNING)
    first, second = case.ask(), case.ask()
    await case.progress.get()
    assert not first.done()
    with pytest.raises(ApiError, match="OTHER_OPERATION_IN_PROGRESS"):
        await case.backend.disks.snapshot(case.disk.slot, case.images.path("other"))
    await case.execute("block-job-set-speed", device=case.job, speed=0)
    await asyncio.gather(first, second)
    assert await case.chain() == [case.images.path("base")]
    assert await case.disk.reads(7, 0, 3 * MB)


async def test_a_commit_that_is_cancelled_ends_and_loses_nothing(case: Case) -> None:
    asked = case.ask()
    await case.progress.get()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert asked.cancelled()
    assert await case.chain() == [case.images.path("over"), case.images.path("base")]
    assert await case.disk.reads(7, 0, 3 * MB)
    await case.ask()
    assert await case.chain() == [case.images.path("base")]


async def test_a_commit_that_is_cancelled_while_it_is_being_started_leaves_no_job(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = case.backend.guest(case.domain.vm.uuid)
    await jobs.cancel(guest, case.job)
    execute = guest.execute

    async def overtaken(command: str, **arguments: Any) -> Any:
        if command != "block-commit":
            return await execute(command, **arguments)
        await execute(command, **arguments, speed=SLOW)
        asked.cancel()  # before the answer is heard
        return await asyncio.sleep(0)

    monkeypatch.setattr(guest, "execute", overtaken)
    asked = case.ask()
    await asyncio.wait({asked})
    assert asked.cancelled()
    assert await jobs.of_device(guest, "0") == []
    await case.backend.disks.snapshot(case.disk.slot, await case.images.make("next", over="over"))


async def test_a_commit_ends_with_its_qemu_and_loses_nothing(case: Case) -> None:
    asked = case.ask()
    await case.progress.get()
    os.kill(case.bench.built[case.domain.domid][1].pid, signal.SIGKILL)
    with pytest.raises(ApiError, match="INTERNAL_ERROR"):
        await asked
    assert (await case.bench.next_stop()).reason is StopReason.DIED
    assert await case.chain() == []
    assert await case.images.holds(case.images.path("over"), 7, 0, 3 * MB)


async def test_an_image_whose_name_belongs_to_another_file_is_not_written_to(case: Case) -> None:
    """QEMU would open it by that name."""
    await jobs.cancel(case.backend.guest(case.domain.vm.uuid), case.job)
    base = Path(case.images.path("base"))
    await asyncio.to_thread(base.rename, base.with_suffix(".moved"))
    with pytest.raises(ApiError, match="lost its name"):
        await case.ask()
    await case.images.make("base")
    with pytest.raises(ApiError, match="another file"):
        await case.ask()
    assert await case.disk.reads(7, 0, 3 * MB)
