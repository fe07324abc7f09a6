"""Names that a shell would obey, and that programs would take for options or protocols."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.contracts.storage import SrAttach, SrCreate, VdiClone, VdiCreate, VdiRef, VdiResize
from tests.storage.support import HOST_A, MIB, SR, disk, machine, new_uuid

FOLDERS = ("$(touch pwned); `touch pwned`", "json:{}, a=b", "-o nbd:unix:x 'q\" \\", "two\nlines ümlaut")


@pytest.mark.parametrize("name", FOLDERS)
async def test_an_sr_in_a_folder_of_any_name_can_do_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"location": str(tmp_path / name)}
    async with machine(tmp_path / "state", HOST_A) as served:
        host = served[HOST_A]
        await host.create_sr(SrCreate(sr=SR, type="file", device_config=config, name_label=name))
        await host.attach_sr(SrAttach(sr=SR, type="file", device_config=config))
        made = await host.disks.create(VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=MIB, name_label=name))
        locations = [made.location]
        for snapshot in (True, False):
            request = VdiClone(sr=SR, location=made.location, uuid=new_uuid(), snapshot=snapshot, name_label=name)
            locations.append((await host.disks.clone(request)).location)
        await host.disks.resize(VdiResize(sr=SR, location=made.location, virtual_size=2 * MIB))
        copied = VdiClone(sr=SR, location=locations[1], uuid=new_uuid(), name_label=name)
        locations.append((await host.disks.copy(copied, _nobody)).location)
        [backend] = await host.datapaths.open([disk(made.location)])
        assert Path(backend.path).parent == tmp_path / name
        await host.datapaths.close(["vbd/vm/0"])
        listed = (await host.disks.scan(SR)).disks
        assert {each.location for each in listed} == set(locations)
        assert {each.name_label for each in listed} == {name}
        for location in locations:
            await host.disks.destroy(VdiRef(sr=SR, location=location))
        await host.detach_sr(SR)
    assert sorted(os.listdir(tmp_path)) == sorted(["state", name])


@pytest.mark.parametrize("location", ["../outside", "/etc/passwd", "", "a/../../outside", ".sr", "x\0y", "$(id)"])
async def test_a_location_that_leads_out_of_the_sr_is_no_disk(tmp_path: Path, location: str) -> None:
    config = {"location": str(tmp_path / "sr")}
    outside = tmp_path / "outside.qcow2"
    outside.write_bytes(b"precious")
    (tmp_path / "outside.json").write_text('{"uuid": "x"}')
    async with machine(tmp_path / "state", HOST_A) as served:
        host = served[HOST_A]
        await host.create_sr(SrCreate(sr=SR, type="file", device_config=config))
        await host.attach_sr(SrAttach(sr=SR, type="file", device_config=config))
        for work in (
            host.datapaths.open([disk(location)]),
            host.disks.destroy(VdiRef(sr=SR, location=location)),
            host.disks.stat(VdiRef(sr=SR, location=location)),
            host.disks.resize(VdiResize(sr=SR, location=location, virtual_size=MIB)),
        ):
            with pytest.raises(Exception, match="VDI_MISSING"):
                await work
        assert host.datapaths.held() == []
    assert outside.read_bytes() == b"precious"
    assert (tmp_path / "outside.json").exists()


async def _nobody(_: float) -> None:
    """Nobody is told how far a copy is."""
