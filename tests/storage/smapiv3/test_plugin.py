"""Script folders as SR types: what the interface of SR types has and SMAPIv3 says otherwise."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import msgspec
import pytest

from services.storage.plugins.interface import (
    ActivatedOnAnotherHost,
    Domain,
    Handle,
    NewVolume,
    Range,
    Unimplemented,
    Volume,
)
from services.storage.smapiv3 import interface_v5 as v5
from services.storage.smapiv3 import metadata, repositories
from services.storage.smapiv3.state import Made
from shared.errors import ApiError
from tests.storage.smapiv3.conftest import Scripted
from tests.storage.smapiv3.install import script
from tests.storage.support import HOST_A, HOST_B, MIB, SR, new, new_uuid

VM = Domain(host=HOST_A, dp="vbd/vm-1/xvda")
READER = Domain(host=HOST_A, dp="nbd/2")


async def about(volume: Volume, scripted: Scripted) -> dict[str, str]:
    """What the plug-in keeps for the toolstack."""
    text = await asyncio.to_thread((scripted.folder / "sr" / f"{volume.key}.json").read_text)
    keys: dict[str, str] = json.loads(text)["keys"]
    return keys


async def said(scripted: Scripted, volume: Volume) -> list[str]:
    """What the datapath plug-in was asked for."""
    path = scripted.folder / "sr" / f"{volume.key}.raw.said"
    return (await asyncio.to_thread(path.read_text)).splitlines() if path.exists() else []


async def test_its_features_are_those_it_says_and_those_of_its_scripts(scripted: Scripted) -> None:
    features = scripted.plugin.query().features
    assert features["VDI_DELETE"] == features["VDI_CONFIG_CBT"] == features["VDI_ACTIVATE_READONLY"] == 1
    assert features["VDI_RESET_ON_BOOT"] == 2
    assert {"SR_PROBE", "SR_SCAN", "VDI_SNAPSHOT", "VDI_RESIZE", "VDI_INTRODUCE"} <= features.keys()
    assert not features.keys() & {"VDI_DESTROY", "VDI_TELEPORT", "VDI_MIRROR"}


async def test_the_sr_type_is_that_of_its_folder(scripted: Scripted) -> None:
    assert scripted.plugin.query().type == "simple-file"
    assert await scripted.plugin.diagnostics() == "nothing to say"


# -- SRs -------------------------------------------------------------------------------------------------------------


async def test_a_restarted_service_uses_the_sr_as_it_was_attached(scripted: Scripted) -> None:
    handle = await scripted.sr()
    plugin = await scripted.again()
    attach = scripted.root / "volume/org.xen.xapi.storage.simple-file/SR.attach"
    attach.unlink()
    assert await plugin.sr.attach(SR, {"location": str(scripted.folder / "sr")}, HOST_A) == handle
    assert await plugin.sr.ls(handle) == []


async def test_after_a_reboot_it_is_attached_anew(scripted: Scripted) -> None:
    handle = await scripted.sr()
    plugin = await scripted.again("boot-2")
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.ls(handle)
    await plugin.sr.attach(SR, {"location": str(scripted.folder / "sr")}, HOST_A)
    assert await plugin.sr.ls(handle) == []


async def test_one_that_cannot_be_used_as_it_was_is_attached_anew(scripted: Scripted) -> None:
    await scripted.sr()
    moved = scripted.folder / "elsewhere"
    (scripted.folder / "sr").rename(moved)
    handle = await scripted.plugin.sr.attach(SR, {"location": str(moved)}, HOST_A)
    assert await scripted.plugin.sr.ls(handle) == []


async def test_an_sr_that_cannot_be_reached_for_a_moment_is_listed(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repositories, "RETRY_INTERVAL", 0.0)
    handle = await scripted.sr()
    health = scripted.folder / "sr/.health"
    await asyncio.to_thread(health.write_text, json.dumps([["Unreachable", "cable"]] * 3))
    assert await scripted.plugin.sr.ls(handle) == []


@pytest.mark.parametrize(
    ("state", "advice"), [("Unreachable", "try again later"), ("Unavailable", "try reboot"), ("Recovering", "mirrors")]
)
async def test_an_sr_that_is_not_healthy_is_not_listed(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, state: str, advice: str
) -> None:
    monkeypatch.setattr(repositories, "RETRY_INTERVAL", 0.0)
    handle = await scripted.sr()
    await asyncio.to_thread((scripted.folder / "sr/.health").write_text, json.dumps([[state, "mirrors"]] * 10))
    with pytest.raises(ApiError, match="SR_UNHEALTHY") as error:
        await scripted.plugin.sr.ls(handle)
    assert error.value.params == [SR, state, advice]
    assert (await scripted.plugin.sr.stat(handle)).health == state.lower()


def test_a_probe_that_contradicts_itself_is_a_failure_of_the_script() -> None:
    there = v5.SrStat("sr", "name", "", 0, 0, [], False, ("Healthy", ""))
    for wrong in (
        v5.ProbeResult(configuration={"sr_uuid": SR}, complete=False, extra_info={}),
        v5.ProbeResult(configuration={}, complete=True, extra_info={}, sr=there),
    ):
        with pytest.raises(ApiError, match="SCRIPT_FAILED"):
            repositories.probed([wrong])
    room = v5.ProbeResult(configuration={}, complete=False, extra_info={"lun": "1"})
    assert [(found.uuid, found.complete) for found in repositories.probed([room])] == [("", False)]


# -- volumes ---------------------------------------------------------------------------------------------------------


async def test_what_the_toolstack_says_of_a_disk_is_kept_with_it(scripted: Scripted) -> None:
    handle = await scripted.sr()
    volume = scripted.plugin.volume
    wanted = NewVolume(uuid=new_uuid(), name="n", keys={"vdi-type": "system", "_sm_config_a": "1", "x": ""})
    made = await volume.create(handle, wanted, MIB)
    assert made.keys == wanted.keys == await about(made, scripted)
    assert await volume.stat(handle, made.key) == made
    await volume.set(handle, made.key, {"x": None, "_sm_config_b": "2"})
    assert await about(made, scripted) == {"vdi-type": "system", "_sm_config_a": "1", "_sm_config_b": "2"}
    await volume.describe(handle, made.key, "other", None)
    assert (await volume.stat(handle, made.key)).name == "other"


async def test_a_snapshot_says_what_it_is_a_snapshot_of(scripted: Scripted) -> None:
    handle = await scripted.sr()
    volume = scripted.plugin.volume
    source = await volume.create(handle, NewVolume(uuid=new_uuid(), name="root", keys={"vdi-type": "system"}), MIB)
    snapshot = await volume.snapshot(handle, source.key, new("before"))
    kept = await about(snapshot, scripted)
    assert snapshot.keys == kept
    assert (snapshot.name, kept["vdi-type"], kept["is_a_snapshot"]) == ("before", "system", "true")
    assert kept["snapshot_of"] == source.key
    assert kept["snapshot_time"].endswith("Z")


async def test_a_disk_that_cannot_be_described_is_not_left_behind(scripted: Scripted) -> None:
    handle = await scripted.sr()
    folder = scripted.root / "volume/org.xen.xapi.storage.simple-file"
    (folder / "Volume.set").unlink()
    script(folder, "Volume.set", "#!/bin/sh\nexit 1\n")
    with pytest.raises(ApiError, match="SCRIPT_FAILED"):
        await scripted.plugin.volume.create(handle, NewVolume(uuid=new_uuid(), keys={"vdi-type": "user"}), MIB)
    assert await scripted.plugin.sr.ls(handle) == []


async def test_a_request_that_is_cancelled_while_its_disk_is_described_leaves_none(scripted: Scripted) -> None:
    handle = await scripted.sr()
    folder = scripted.root / "volume/org.xen.xapi.storage.simple-file"
    started = scripted.folder / "started"
    os.mkfifo(started)
    (folder / "Volume.set").unlink()
    script(folder, "Volume.set", f"#!/bin/sh\necho >{started}\nexec sleep 60\n")
    wanted = NewVolume(uuid=new_uuid(), keys={"vdi-type": "user"})
    creating = asyncio.ensure_future(scripted.plugin.volume.create(handle, wanted, MIB))
    await asyncio.to_thread(started.read_bytes)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert await scripted.plugin.sr.ls(handle) == []


async def test_a_plug_in_that_keeps_no_metadata_makes_disks_nevertheless(scripted: Scripted) -> None:
    handle = await scripted.sr()
    (scripted.root / "volume/org.xen.xapi.storage.simple-file/Volume.set").unlink()
    wanted = NewVolume(uuid=new_uuid(), keys={"vdi-type": "user"})
    made = await scripted.plugin.volume.create(handle, wanted, MIB)
    assert [each.key for each in await scripted.plugin.sr.ls(handle)] == [made.key]
    with pytest.raises(Unimplemented):
        await scripted.plugin.volume.set(handle, made.key, {"a": "1"})


async def test_what_a_crash_left_unsaid_of_a_disk_is_said_when_the_sr_is_attached(scripted: Scripted) -> None:
    handle = await scripted.sr()
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    state = scripted.discovery._state
    await state.make(SR, "request", Made(key=made.key, origin="create", pending={"vdi-type": "system"}))
    plugin = await scripted.again()
    await plugin.sr.attach(SR, {"location": str(scripted.folder / "sr")}, HOST_A)
    assert await about(made, scripted) == {"vdi-type": "system"}


async def test_differences_are_ranges_of_bytes(scripted: Scripted) -> None:
    handle = await scripted.sr()
    volume = scripted.plugin.volume
    made = await volume.create(handle, new(), MIB)
    snapshot = await volume.snapshot(handle, made.key, new())

    def write() -> None:
        with (scripted.folder / "sr" / f"{made.key}.raw").open("r+b") as data:
            data.seek(2 * 4096)
            data.write(b"x")

    await asyncio.to_thread(write)
    assert await volume.compare(handle, made.key, snapshot.key) == [Range(2 * 4096, 4096)]
    changed = await volume.changed_blocks(handle, snapshot.key, made.key)
    assert (changed.granularity, changed.bitmap) == (65536, b"\x80")
    assert [each.key for each in await volume.similar_content(handle, made.key)] == [snapshot.key]
    await volume.data_destroy(handle, snapshot.key)
    assert (await volume.stat(handle, snapshot.key)).keys["vdi-type"] == "cbt_metadata"


async def test_what_it_has_no_script_for_is_unimplemented_and_what_it_needs_is_missed(scripted: Scripted) -> None:
    handle = await scripted.sr()
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    with pytest.raises(Unimplemented, match=r"Volume\.compose"):
        await scripted.plugin.volume.compose(handle, made.key, made.key)
    folder = scripted.root / "volume/org.xen.xapi.storage.simple-file"
    (folder / "Volume.clone").unlink()
    with pytest.raises(Unimplemented, match=r"Volume\.clone"):
        await scripted.plugin.volume.clone(handle, made.key, new())
    (folder / "SR.ls").unlink()
    with pytest.raises(ApiError, match="SCRIPT_MISSING") as error:
        await scripted.plugin.sr.ls(handle)
    assert error.value.params[0] == str(folder / "SR.ls")


def test_volumes_without_uuids_get_some_that_stay() -> None:
    record = v5.VolumeRecord("k", "", "", True, False, 1, 1, [], {})
    for uuid in (None, "", "file1"):
        derived = metadata.volume(SR, msgspec.structs.replace(record, uuid=uuid), []).uuid
        assert derived == metadata.volume(SR, record, []).uuid
        assert derived != metadata.volume(new_uuid(), record, []).uuid
    own = new_uuid()
    assert metadata.volume(SR, msgspec.structs.replace(record, uuid=own.upper()), []).uuid == own
    assert metadata.volume(SR, msgspec.structs.replace(record, key=own), []).uuid == own


# -- datapaths -------------------------------------------------------------------------------------------------------


async def test_the_best_uri_with_a_plug_in_is_used_and_the_best_way_that_qemu_has(scripted: Scripted) -> None:
    handle = await scripted.sr()
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    path = str(scripted.folder / "sr" / f"{made.key}.raw")
    assert made.uri == [f"raw+file://{path}", f"tape:///{made.key}"]
    backend = await scripted.plugin.datapath.attach(made.uri[0], VM)
    assert (backend.kind, backend.path, backend.format) == ("file", path, "raw")
    with pytest.raises(ApiError, match="MISSING_URI"):
        await scripted.plugin.datapath.attach(made.uri[1], VM)


async def test_one_domain_attaches_and_detaches_whoever_was_first_and_last(scripted: Scripted) -> None:
    """Several datapaths of a host share one attachment, which a plug-in may count by domain."""
    handle = await scripted.sr()
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    await scripted.plugin.datapath.attach(made.uri[0], VM)
    plugin = await scripted.again()
    await plugin.datapath.attach(made.uri[0], READER)
    await plugin.datapath.detach(made.uri[0], READER)
    await plugin.datapath.attach(made.uri[0], READER)
    assert await said(scripted, made) == [
        "attach u0_vbd_vm_1_xvda",
        "attach u0_vbd_vm_1_xvda",
        "detach u0_vbd_vm_1_xvda",
        "attach u0_nbd_2",
    ]


async def test_readers_of_a_plug_in_without_that_feature_are_activated_as_writers(scripted: Scripted) -> None:
    handle = await scripted.sr()
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    other = Domain(host=HOST_B, dp="vbd/vm-2/xvda")
    await scripted.plugin.datapath.activate_readonly(made.uri[0], VM)
    await scripted.plugin.datapath.activate_readonly(made.uri[0], other)
    await scripted.plugin.datapath.deactivate(made.uri[0], other)
    scripted.plugin.datapath.readonly = False
    with pytest.raises(ActivatedOnAnotherHost) as refused:
        await scripted.plugin.datapath.activate_readonly(made.uri[0], other)
    assert refused.value.host == HOST_A


async def test_a_loop_device_is_there_from_attach_to_detach(scripted: Scripted) -> None:
    await scripted.alias("loop+file")
    handle = await scripted.sr()
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    uri = made.uri[0].replace("raw+file", "loop+file")
    backend = await scripted.plugin.datapath.attach(uri, VM)
    assert backend.kind == "block"
    assert backend == await scripted.plugin.datapath.attach(uri, VM)
    sizes = Path("/sys/block") / Path(backend.path).name / "size"
    assert await asyncio.to_thread(sizes.read_text) == f"{MIB // 512}\n"
    await scripted.plugin.datapath.detach(uri, VM)
    await scripted.plugin.datapath.detach(uri, VM)
    assert not await asyncio.to_thread((sizes.parent / "loop").exists)


# -- disks that forget -----------------------------------------------------------------------------------------------


async def run_of_vm(scripted: Scripted, handle: Handle, key: str) -> Volume:
    await scripted.plugin.volume.epoch(handle, key, "vm", True, False)
    return await scripted.plugin.volume.stat(handle, key)


async def test_a_run_that_is_to_be_forgotten_writes_to_a_clone(scripted: Scripted) -> None:
    handle = await scripted.sr()
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    running = await run_of_vm(scripted, handle, made.key)
    assert running.key == made.key
    assert running.uri != made.uri
    assert await scripted.plugin.sr.ls(handle) == [made]
    again = await run_of_vm(scripted, handle, made.key)
    assert again.uri not in (running.uri, made.uri)
    await scripted.plugin.volume.epoch(handle, made.key, "vm", False, False)
    assert await scripted.plugin.volume.stat(handle, made.key) == made
    assert len(list((scripted.folder / "sr").glob("*.raw"))) == 1


async def test_a_disk_is_destroyed_with_the_clone_of_its_run(scripted: Scripted) -> None:
    handle = await scripted.sr()
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    await run_of_vm(scripted, handle, made.key)
    await scripted.plugin.volume.destroy(handle, made.key)
    assert list((scripted.folder / "sr").glob("*.raw")) == []


async def test_a_clone_that_a_crash_left_unknown_is_hidden_and_then_destroyed(scripted: Scripted) -> None:
    handle = await scripted.sr()
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    clone = await scripted.plugin.volume.clone(handle, made.key, new())
    await scripted.discovery._state.add_temporary(SR, clone.key, made.key)
    assert await scripted.plugin.sr.ls(handle) == [made]
    plugin = await scripted.again()
    await plugin.sr.attach(SR, {"location": str(scripted.folder / "sr")}, HOST_A)
    assert len(list((scripted.folder / "sr").glob("*.raw"))) == 1


async def test_a_datapath_that_can_forget_is_told_to(scripted: Scripted) -> None:
    await scripted.alias("forgetful+file")
    handle = await scripted.sr()
    program = scripted.root / "volume/org.xen.xapi.storage.simple-file/simple_file.py"
    text = await asyncio.to_thread(program.read_text)
    await asyncio.to_thread(program.write_text, text.replace('"tape:///" + key', '"forgetful+file://" + data'))
    made = await scripted.plugin.volume.create(handle, new(), MIB)
    for persistent in (False, True):
        await scripted.plugin.volume.epoch(handle, made.key, "vm", True, persistent)
        await scripted.plugin.volume.epoch(handle, made.key, "vm", False, persistent)
    assert await said(scripted, made) == ["open False", "close", "open True", "close"]
    assert len(list((scripted.folder / "sr").glob("*.raw"))) == 1
