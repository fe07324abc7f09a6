"""A datapath that goes on with another disk while that is in use, also when the process is killed half-way."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.storage.datapaths import Datapaths
from shared.contracts.storage import HandOver, VdiRef
from shared.errors import ApiError
from tests.storage.support import HOST_A, HOST_B, SR, Machine, disk, machine, with_disk, with_sr

VBD, MIRROR = "vbd/vm/0", "vbd/vm/0/new"
POINTS = (
    *("hand over: before intent", "hand over: after intent", "close: before intent", "close: after intent"),
    *("after deactivate", "after detach", "close: done", "hand over: done"),
)


@pytest.fixture(params=["file", "dummy"])
async def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def prepared(made: Machine, folder: Path, kind: str) -> HandOver:
    """Two disks of an SR that both hosts have, open on the first; what is to happen to them."""
    for host in (HOST_A, HOST_B):
        await with_sr(made[host], folder, kind)
    old, new = [await with_disk(made[HOST_A]) for _ in range(2)]
    await made[HOST_A].datapaths.open([disk(old, VBD), disk(new, MIRROR)])
    return HandOver(dp=VBD, other=MIRROR, sr=SR, location=new)


def held(datapaths: Datapaths) -> dict[str, str]:
    return {dp.dp: dp.location for dp in datapaths.held()}


async def only_the_first_host_writes(made: Machine, location: str) -> None:
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await made[HOST_B].datapaths.open([disk(location)])


async def test_a_datapath_has_the_other_disk_and_the_former_one_is_free(tmp_path: Path, kind: str) -> None:
    async with machine(tmp_path / "state", HOST_A, HOST_B) as made:
        wanted = await prepared(made, tmp_path / "sr", kind)
        here = made[HOST_A].datapaths
        [old] = {location for dp, location in held(here).items() if dp == VBD}
        for _ in range(2):  # asked again, nothing changes
            await here.hand_over(wanted)
            assert held(here) == {VBD: wanted.location}
        await only_the_first_host_writes(made, wanted.location)
        await made[HOST_A].disks.destroy(VdiRef(sr=SR, location=old))
        [backend] = await here.open([disk(wanted.location, VBD)])
        assert (backend.dp, backend.writable) == (VBD, True)
        await here.close([VBD])
        await made[HOST_B].datapaths.open([disk(wanted.location)])


async def test_what_another_datapath_does_not_have_is_not_handed_over(tmp_path: Path, kind: str) -> None:
    async with machine(tmp_path / "state", HOST_A, HOST_B) as made:
        wanted = await prepared(made, tmp_path / "sr", kind)
        here = made[HOST_A].datapaths
        before = held(here)
        third = await with_disk(made[HOST_A])
        with pytest.raises(ApiError, match="INTERNAL_ERROR"):
            await here.hand_over(HandOver(dp=VBD, other=MIRROR, sr=SR, location=third))
        assert held(here) == before
        await here.hand_over(wanted)


async def test_plug_ins_know_an_open_disk_by_the_name_that_they_were_told(tmp_path: Path) -> None:
    """It can move on from there, and back."""
    async with machine(tmp_path / "state", HOST_A, HOST_B) as made:
        wanted = await prepared(made, tmp_path / "sr", "file")
        here = made[HOST_A].datapaths
        await here.hand_over(wanted)
        plugin, handle = made[HOST_A].repositories.find(SR)
        assert [one.dp for one in await plugin.datapath.held(handle)] == [MIRROR]
        third = await with_disk(made[HOST_A])
        await here.open([disk(third, "vbd/vm/0/third")])
        await here.hand_over(HandOver(dp=VBD, other="vbd/vm/0/third", sr=SR, location=third))
        assert held(here) == {VBD: third}
        await here.close([VBD])
        assert list(await plugin.datapath.held(handle)) == []


class _Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_any_point_leaves_both_disks_open_or_the_change_made(tmp_path: Path, point: str) -> None:
    async with machine(tmp_path / "state", HOST_A, HOST_B) as made:
        wanted = await prepared(made, tmp_path / "sr", "file")

        def checkpoint(name: str) -> None:
            if name == point:
                raise _Killed

        made[HOST_A].datapaths.checkpoint = checkpoint
        with pytest.raises(_Killed):
            await made[HOST_A].datapaths.hand_over(wanted)
    async with machine(tmp_path / "state", HOST_A, HOST_B) as made:
        here = made[HOST_A].datapaths
        found = held(here)
        assert found[VBD] == wanted.location or found[MIRROR] == wanted.location
        await only_the_first_host_writes(made, wanted.location)
        await here.hand_over(wanted)
        assert held(here) == {VBD: wanted.location}
        await here.close([VBD])
    leases = {path.name for path in (tmp_path / "sr" / ".leases").iterdir() if "guard" not in path.name}
    assert leases == set()
