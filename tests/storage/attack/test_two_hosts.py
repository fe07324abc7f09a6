"""Two hosts with storage services of their own and one folder: what both do at once to the same disks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.storage import VdiClone, VdiRef, VdiResize
from shared.errors import ApiError
from tests.storage.support import HOST_A, HOST_B, MIB, SR, Machine, disk, machine, new_uuid, with_disk, with_sr

REFUSED = ("VDI_IN_USE", "VDI_MISSING", "cannot shrink")
"""How a call may lose a race."""


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[list[tuple[str, Machine]]]:
    async with machine(tmp_path / "a", HOST_A) as one, machine(tmp_path / "b", HOST_B) as other:
        pair = [(HOST_A, one), (HOST_B, other)]
        for host, served in pair:
            await with_sr(served[host], tmp_path / "sr")
        yield pair


class Writers:
    """Who writes to a disk just now, as the hosts were told."""

    def __init__(self) -> None:
        self.now: set[str] = set()
        self.most = self.turns = 0

    def begin(self, who: str) -> None:
        self.now.add(who)
        self.most = max(self.most, len(self.now))
        self.turns += 1


async def lost_or_won(work: Coroutine[Any, Any, object]) -> bool:
    try:
        await work
    except ApiError as error:
        if not any(word in str(error) for word in REFUSED):
            raise
        return False
    return True


async def test_starts_copies_snapshots_and_resizes_at_once_never_make_two_writers(
    hosts: list[tuple[str, Machine]], tmp_path: Path
) -> None:
    """The disk survives all of it, what was made of it is whole, and nothing but disks is left in the folder."""
    location = await with_disk(hosts[0][1][HOST_A])
    writers, chance = Writers(), random.Random(5)

    async def run_vm(host: str, served: Machine) -> None:
        for turn in range(12):
            dp = f"vbd/{host}/{turn}"
            if await lost_or_won(served[host].datapaths.open([disk(location, dp=dp)])):
                writers.begin(dp)
                await asyncio.sleep(0.002)
                writers.now.remove(dp)
                await served[host].datapaths.close([dp])
            await asyncio.sleep(chance.random() / 100)

    async def meddle(host: str, served: Machine) -> None:
        disks = served[host].disks
        for turn in range(6):
            request = VdiClone(sr=SR, location=location, uuid=new_uuid(), snapshot=turn % 2 == 0)
            await lost_or_won(disks.clone(request))
            await lost_or_won(disks.copy(VdiClone(sr=SR, location=location, uuid=new_uuid()), _nobody))
            await lost_or_won(disks.resize(VdiResize(sr=SR, location=location, virtual_size=(5 + turn) * MIB)))

    await asyncio.gather(*(work(host, served) for host, served in hosts for work in (run_vm, meddle)))
    assert (writers.most, writers.now) == (1, set())
    assert writers.turns
    scans = [await served[host].disks.scan(SR) for host, served in hosts]
    listed = {each.location for each in scans[0].disks}
    assert listed == {each.location for each in scans[1].disks}
    assert location in listed
    for host, served in hosts:
        assert served[host].datapaths.held() == []
        for each in listed:  # every one of them can be opened, in turn, on each host
            await served[host].datapaths.open([disk(each, dp="vbd/check/0", writable=False)])
            await served[host].datapaths.close(["vbd/check/0"])
    for each in sorted(listed):
        await hosts[1][1][HOST_B].disks.destroy(VdiRef(sr=SR, location=each))
    assert [file.name for file in (tmp_path / "sr").iterdir() if not file.name.startswith(".")] == []
    assert [file.name for file in (tmp_path / "sr/.leases").iterdir() if ".writer" in file.name] == []


async def test_of_a_start_and_a_destruction_on_two_hosts_one_wins(
    hosts: list[tuple[str, Machine]], tmp_path: Path
) -> None:
    """A VM never runs on a disk that is gone, and a disk that was not destroyed is whole."""
    (a, one), (b, other) = hosts
    for turn in range(10):
        location = await with_disk(one[a])
        starting = lost_or_won(one[a].datapaths.open([disk(location)]))
        destroying = lost_or_won(other[b].disks.destroy(VdiRef(sr=SR, location=location)))
        work = (starting, destroying) if turn % 2 else (destroying, starting)
        results = await asyncio.gather(*work)
        assert sorted(results) == [False, True]
        started = results[0] if turn % 2 else results[1]
        assert (tmp_path / "sr" / f"{location}.qcow2").exists() is started
        if started:
            await one[a].datapaths.close(["vbd/vm/0"])
        assert one[a].datapaths.held() == []


async def _nobody(_: float) -> None:
    """Nobody is told how far a copy is."""
