"""Drivers behind the interface of plug-ins: what they are asked, and what comes of it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from services.api.decisions import unfinished_disks
from services.storage.plugins.interface import Domain, Unimplemented
from services.storage.smapiv1.marks import Activation
from services.storage.smapiv1.plugin import DriverPlugin
from shared.bus import context
from shared.bus.context import CallContext
from shared.contracts.db import Update
from shared.errors import ApiError
from tests.api.harness import error_of
from tests.storage.smapiv1.conftest import MIB, Bench, disk, new

pytestmark = pytest.mark.asyncio(loop_scope="module")


def domain(bench: Bench, writable: bool = True) -> Domain:
    return Domain(host=bench.host.uuid, dp="vbd/vm/0", writable=writable)


# ---- SRs


async def test_an_sr_lives_its_life(bench: Bench) -> None:
    plugin, sr, _ = await bench.attached("testdummy")
    assert (await plugin.sr.stat(sr)).total_space == 1 << 40
    made = await disk(plugin, sr)
    [found] = await plugin.sr.ls(sr)
    assert (found.key, found.uuid, found.name, found.virtual_size) == ("loc disk", made.uuid, "disk", MIB)
    await plugin.volume.destroy(sr, made.key)
    assert await plugin.sr.ls(sr) == []
    await plugin.sr.destroy(sr)
    commands = [call["command"] for call in bench.calls()]
    assert commands == [
        *("sr_create", "sr_attach", "sr_update", "vdi_create", "sr_scan", "vdi_delete", "sr_scan", "sr_delete")
    ]


async def test_a_driver_is_told_who_and_where_it_is(bench: Bench) -> None:
    plugin, sr, ref = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    await plugin.volume.resize(sr, made.key, 2 * MIB)
    create, attach, _, resize = bench.calls()
    for call in (create, attach, resize):
        assert call["host_ref"] == bench.pool.host_ref(0)
        assert call["sr_ref"] == ref
        assert call["sr_uuid"] == bench.pool.row("SR", ref)["uuid"]
        assert call["device_config"]["SRmaster"] == "true"
        assert bench.pool.row("session", call["session_ref"])["other_config"] == {"_sm_session": ref}
    assert resize["device_config"] == {**bench.config(ref), "SRmaster": "true"}
    assert resize["args"] == [str(2 * MIB)]
    assert resize["vdi_location"] == made.key
    assert resize["vdi_uuid"] == made.uuid
    assert (resize["vdi_on_boot"], resize["vdi_allow_caching"]) == ("persist", "false")
    assert "vdi_ref" not in attach


@pytest.mark.parametrize("command", ["vdi_create", "vdi_clone", "vdi_snapshot"])
async def test_a_disk_that_is_made_for_a_task_says_so_in_its_row(bench: Bench, command: str) -> None:
    """Until the task's call says that it has succeeded: its process may be killed."""
    plugin, sr, ref = await bench.attached("testdummy")
    source = await disk(plugin, sr)
    token = context.current.set(CallContext(task="OpaqueRef:task"))
    if command == "vdi_create":
        made = await disk(plugin, sr, "another")
    else:
        made = await getattr(plugin.volume, command.removeprefix("vdi_"))(sr, source.key, new("another"))
    context.current.reset(token)
    owner = {volume.uuid: unfinished_disks.owner(bench.vdi(volume)) for volume in (source, made)}
    assert owner == {source.uuid: None, made.uuid: "OpaqueRef:task"}
    asked = bench.calls(command)[-1]
    assert asked["session_ref"] != await bench.host.xapi.session(ref)
    await bench.pool.until(lambda: bench.pool.row("session", asked["session_ref"]) is None)


async def test_a_driver_may_change_what_its_sr_is_attached_with(bench: Bench) -> None:
    plugin = await bench.plugin("testdummy")
    ref, new_uuid = await bench.row("testdummy")
    config = await plugin.sr.create_on(bench.host.uuid, new_uuid, bench.config(ref), "", "", 77)
    assert config == bench.config(ref)
    assert config["size"] == "77"


async def test_a_probe_answers_in_the_drivers_own_words(bench: Bench) -> None:
    plugin = await bench.plugin("testdummy")
    [found] = await plugin.sr.probe_on(bench.host.uuid, {"log": str(bench.log)}, {"find": "me"})
    assert found.raw == "<SRlist><SR><UUID>me</UUID></SR></SRlist>"
    [call] = bench.calls()
    assert call["device_config"]["SRmaster"] == "true"
    assert "sr_ref" not in call


async def test_who_cannot_probe_says_so(bench: Bench) -> None:
    plugin = await bench.plugin("testiso")
    code, reason, *_ = await error_of(plugin.sr.probe_on(bench.host.uuid, {}, {}))
    assert (code, reason) == ("SR_BACKEND_FAILURE", "Operation 'sr_probe' not supported by this SR type")


async def test_an_sr_that_recovery_has_brought_in_is_only_read(bench: Bench) -> None:
    plugin, sr, ref = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    await bench.pool.write(Update(cls="SR", ref=ref, fields={"introduced_by": "OpaqueRef:a-task"}))
    await plugin.sr.ls(sr)
    assert (await error_of(plugin.volume.destroy(sr, made.key)))[0] == "OPERATION_NOT_ALLOWED"


async def test_attaching_again_after_a_restart_does_not_ask_the_driver_again(bench: Bench) -> None:
    _, _, ref = await bench.attached("testdummy")
    bench.begin()
    plugin = await bench.plugin("testdummy")
    uuid = bench.pool.row("SR", ref)["uuid"]
    sr = await plugin.sr.attach(uuid, bench.config(ref), bench.host.uuid)
    assert len(bench.calls("sr_attach")) == 1
    await plugin.sr.detach(sr)
    await plugin.sr.attach(uuid, bench.config(ref), bench.host.uuid)
    assert len(bench.calls("sr_attach")) == 2


async def test_after_a_boot_nothing_is_attached(bench: Bench) -> None:
    plugin, sr, ref = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    await plugin.datapath.attach(made.uri[0], domain(bench))
    await plugin.datapath.activate(made.uri[0], domain(bench))
    (bench.folder / "view" / "state" / "boot").write_text("an earlier one")
    bench.begin()
    plugin = await bench.plugin("testdummy")
    sr = await plugin.sr.attach(bench.pool.row("SR", ref)["uuid"], bench.config(ref), bench.host.uuid)
    assert len(bench.calls("sr_attach")) == 2
    assert await plugin.datapath.held(sr) == []
    assert not any(key.startswith("host_") for key in bench.vdi(made)["sm_config"])


async def test_tags_of_hosts_that_are_gone_are_removed_when_an_sr_is_attached(bench: Bench) -> None:
    plugin, sr, ref = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    other = "OpaqueRef:of-a-host-that-left"
    me = bench.pool.host_ref(0)
    tags = {f"host_{other}": "RW", f"host_{me}": "RW", "keep": "this"}
    await bench.pool.write(Update(cls="VDI", ref=bench.vdi_ref(made), fields={"sm_config": tags}))
    await plugin.sr.detach(sr)
    await plugin.sr.attach(bench.pool.row("SR", ref)["uuid"], bench.config(ref), bench.host.uuid)
    assert bench.vdi(made)["sm_config"] == {"keep": "this"}


async def test_what_a_dead_host_had_can_be_fenced(bench: Bench) -> None:
    plugin, sr, _ = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    tags = {f"host_{bench.pool.host_ref(0)}": "RW"}
    await bench.pool.write(Update(cls="VDI", ref=bench.vdi_ref(made), fields={"sm_config": tags}))
    assert await plugin.datapath.fence(sr, bench.host.uuid) == 1
    assert bench.vdi(made)["sm_config"] == {}


# ---- disks


async def test_a_driver_gets_all_that_is_known_of_a_new_disk(bench: Bench) -> None:
    plugin, sr, _ = await bench.attached("testdummy")
    made = await plugin.volume.create(sr, new("name", **{"vdi-type": "system", "_sm_config_k": "v"}), 5000)
    [call] = bench.calls("vdi_create")
    assert call["args"] == ["5000", "name", "d", "", "false", "19700101T00:00:00Z", "", "false"]
    assert (call["vdi_type"], call["vdi_sm_config"]) == ("system", {"k": "v"})
    assert "vdi_uuid" not in call
    assert (made.virtual_size, made.keys["vdi-type"], made.keys["_sm_config_k"]) == (8192, "system", "v")


async def test_snapshots_and_clones_are_named_and_know_their_content(bench: Bench) -> None:
    plugin, sr, _ = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    wanted = new("frozen").__class__(uuid="u", name="frozen", params={"type": "single", "mirror": "null"})
    snapshot = await plugin.volume.snapshot(sr, made.key, wanted)
    assert (snapshot.name, snapshot.keys["snapshot_of"]) == ("frozen", made.uuid)
    assert snapshot.keys["is_a_snapshot"] == "true"
    assert snapshot.keys["_sm_config_hints"] == "mirror=null,type=single"
    row = bench.vdi(snapshot)
    assert row["other_config"]["content_id"]
    clone = await plugin.volume.clone(sr, snapshot.key, new("clone"))
    assert bench.vdi(clone)["other_config"] == row["other_config"]
    assert "is_a_snapshot" not in clone.keys
    near = await plugin.volume.similar_content(sr, clone.key)
    assert [volume.key for volume in near] == [clone.key, snapshot.key, made.key]


async def test_a_disk_that_is_to_forget_is_cloned_once_for_an_empty_leaf(bench: Bench) -> None:
    plugin, sr, _ = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    await plugin.volume.set_persistent(sr, made.key, True)
    assert bench.calls("vdi_clone") == []
    await plugin.volume.set_persistent(sr, made.key, False)
    assert [volume.key for volume in await plugin.sr.ls(sr)] == [made.key]
    assert len(bench.calls("vdi_clone")) == len(bench.calls("vdi_delete")) == 1


async def test_other_things_that_drivers_do_to_disks(bench: Bench) -> None:
    plugin, sr, _ = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    other = await disk(plugin, sr, "other")
    await plugin.volume.enable_cbt(sr, made.key)
    assert (await plugin.volume.stat(sr, made.key)).cbt_enabled
    await plugin.volume.disable_cbt(sr, made.key)
    assert not (await plugin.volume.update(sr, made.key)).cbt_enabled
    changed = await plugin.volume.changed_blocks(sr, made.key, other.key)
    assert (changed.granularity, changed.bitmap) == (65536, b"\x80\x01")
    await plugin.volume.data_destroy(sr, other.key)
    assert "cbt_metadata" in bench.vdi(other)["other_config"]["content_id"]
    assert "vdi_generate_config" in await plugin.volume.generate_config(sr, made.key)
    introduced = await plugin.volume.introduce(sr, "12345678-0000-4000-8000-000000000000", "found", {})
    assert (introduced.key, introduced.uuid) == ("found", "12345678-0000-4000-8000-000000000000")
    await plugin.volume.compose(sr, made.key, other.key)
    assert bench.calls("vdi_compose")[0]["args"] == [bench.vdi_ref(other)]
    await plugin.volume.epoch(sr, made.key, "vm", True, False)
    await plugin.volume.set(sr, made.key, {"content_id": "c"})
    await plugin.volume.describe(sr, made.key, "new name", None)
    row = bench.vdi(made)
    assert (row["name_label"], row["name_description"], row["other_config"]["content_id"]) == ("new name", "d", "c")


async def test_what_a_driver_does_not_know_is_unimplemented_and_a_disk_without_a_row_is_missing(bench: Bench) -> None:
    plugin, sr, ref = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    with pytest.raises(Unimplemented):
        await plugin.volume.revert(sr, made.key, made.key)
    uuid = bench.pool.row("SR", ref)["uuid"]
    assert await error_of(plugin.volume.destroy(sr, 'not "there')) == ["VDI_MISSING", uuid, 'not "there']


# ---- datapaths


async def test_a_disk_is_activated_once_whatever_restarts_repeat(bench: Bench) -> None:
    plugin, sr, ref = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    found = await plugin.datapath.attach(made.uri[0], domain(bench))
    assert (found.kind, found.path, found.format) == ("file", "", "none")
    await plugin.datapath.activate(made.uri[0], domain(bench))
    tag = f"host_{bench.pool.host_ref(0)}"
    assert bench.vdi(made)["sm_config"][tag] == "RW"
    bench.begin()
    plugin = await bench.plugin("testdummy")
    sr = await plugin.sr.attach(bench.pool.row("SR", ref)["uuid"], bench.config(ref), bench.host.uuid)
    [held] = await plugin.datapath.held(sr)
    assert (held.key, held.dp, held.writable) == (made.key, "vbd/vm/0", True)
    await plugin.datapath.activate(made.uri[0], domain(bench))
    assert len(bench.calls("vdi_activate")) == 1
    for _ in range(2):
        await plugin.datapath.deactivate(made.uri[0], domain(bench))
        await plugin.datapath.detach(made.uri[0], domain(bench))
    assert bench.vdi(made)["sm_config"] == {}
    assert await plugin.datapath.held(sr) == []


async def test_an_activation_that_was_interrupted_is_undone_before_the_next(bench: Bench) -> None:
    plugin, sr, ref = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    uuid = bench.pool.row("SR", ref)["uuid"]
    tags = {f"host_{bench.pool.host_ref(0)}": "RW"}
    await bench.pool.write(Update(cls="VDI", ref=bench.vdi_ref(made), fields={"sm_config": tags}))
    half = Activation(sr=uuid, location=made.key, dp="vbd/vm/0", writable=True, done=False)
    bench.host.marks.activated(half)
    await plugin.datapath.activate(made.uri[0], domain(bench))
    assert [call["command"] for call in bench.calls()][-2:] == ["vdi_deactivate", "vdi_activate"]


async def test_content_has_an_identity_while_nobody_writes_it(bench: Bench) -> None:
    plugin, sr, _ = await bench.attached("testdummy")
    made = await disk(plugin, sr)

    def identity() -> str | None:
        value: str | None = bench.vdi(made)["other_config"].get("content_id")
        return value

    await plugin.volume.set(sr, made.key, {"content_id": "first"})
    await plugin.datapath.activate_readonly(made.uri[0], domain(bench, writable=False))
    await plugin.datapath.deactivate(made.uri[0], domain(bench))
    assert identity() == "first"
    await plugin.datapath.activate(made.uri[0], domain(bench))
    assert identity() is None
    await plugin.datapath.deactivate(made.uri[0], domain(bench))
    assert identity() not in (None, "first")


async def test_whether_reads_are_cached_is_said_in_the_row(bench: Bench) -> None:
    plugin, sr, _ = await bench.attached("testdummy")
    made = await disk(plugin, sr)
    await plugin.datapath.attach(made.uri[0], domain(bench, writable=False))
    assert bench.calls("vdi_attach")[0]["args"] == ["false"]
    assert bench.vdi(made)["sm_config"] == {f"read-caching-enabled-on-{bench.host.uuid}": "true"}
    await plugin.datapath.detach(made.uri[0], domain(bench))
    assert bench.vdi(made)["sm_config"] == {}


async def test_images_are_found_in_their_folder_and_need_no_activation(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a b.iso").write_bytes(bytes(2048))
    plugin, sr, _ = await bench.attached("testiso", location=str(folder))
    [image] = await plugin.sr.ls(sr)
    assert (image.key, image.virtual_size, image.read_write) == ("a b.iso", 2048, False)
    found = await plugin.datapath.attach(image.uri[0], domain(bench, writable=False))
    assert (found.kind, found.path, found.format) == ("file", str(folder / "a b.iso"), "raw")
    await plugin.datapath.activate_readonly(image.uri[0], domain(bench))
    await plugin.datapath.deactivate(image.uri[0], domain(bench))
    assert bench.calls("vdi_activate") == bench.calls("vdi_deactivate") == []
    (folder / "a b.iso").unlink()
    assert await plugin.sr.ls(sr) == []


# ---- drivers that misbehave


LOG = "log <line>"
FAILURES: dict[str, list[object]] = {
    "garbage": ["SR_BACKEND_FAILURE", ..., "<html>this is no answer\n", "said on stderr\n" + LOG],
    "half": ["SR_BACKEND_FAILURE", ..., ..., LOG],
    "exit:3": ["SR_BACKEND_FAILURE", "vdi_create: non-zero exit", "", "why on stderr\n" + LOG],
    "signal:SIGSEGV": ["SR_BACKEND_FAILURE", "vdi_create: received signal: SIGSEGV", "", LOG],
    "answer:null": ["SR_BACKEND_FAILURE", ..., "", "None"],
    'answer:{"uuid": 1, "location": "x"}': ["SR_BACKEND_FAILURE", ..., "", ...],
    'answer:{"uuid": "x", "location": "x"}': ["SR_BACKEND_FAILURE_65", "", ..., ""],
    "fault:44": ["SR_BACKEND_FAILURE_44", "", "told to fail", "detail on stderr\n"],
    "fault:39": ["SR_NOT_EMPTY"],
    "fault:24": ["VDI_IN_USE"],
    "fault:16": ["SR_DEVICE_IN_USE"],
    "fault:144": ["VDI_MISSING", ..., ""],
}
"""What a driver does, and what is raised; dots: anything."""


async def test_what_goes_wrong_in_a_driver_is_told_in_its_own_words(bench: Bench) -> None:
    plugin, sr, ref = await bench.attached("testdummy")
    pbd = bench.pool.store.get("SR", ref, "PBDs")[0]
    for behaviour, error in FAILURES.items():
        config = {"hostile": f"vdi_create={behaviour}"}
        await bench.pool.write(Update(cls="PBD", ref=pbd, fields={"device_config": config}))
        found = await error_of(disk(plugin, sr))
        found = [re.sub("log [0-9a-f]{10}$", LOG, part) for part in found]
        assert len(found) == len(error), (behaviour, found)
        assert all(expected in (..., got) for got, expected in zip(found, error, strict=True)), (behaviour, found)


async def test_what_an_sr_cannot_is_not_supported(bench: Bench) -> None:
    plugin, sr, ref = await bench.attached("testdummy", hostile="sr_scan=fault:38")
    assert await error_of(plugin.sr.ls(sr)) == ["SR_OPERATION_NOT_SUPPORTED", bench.pool.row("SR", ref)["uuid"]]


async def test_children_that_a_driver_leaves_hold_nobody_up(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with asyncio.timeout(5):
        await bench.attached("testdummy", hostile=f"sr_attach=leak:{file}")
    os.kill(int(file.read_text()), signal.SIGKILL)


def runs(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


async def started(tmp_path: Path, count: int = 1) -> list[int]:
    """The pids of drivers that wait."""
    async with asyncio.timeout(10):
        while len(found := [name for name in os.listdir(tmp_path) if name.startswith("go.")]) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return [int(name.removeprefix("go.")) for name in found]


async def test_a_cancelled_call_kills_its_driver(bench: Bench, tmp_path: Path) -> None:
    plugin, sr, _ = await bench.attached("testdummy", hostile=f"sr_scan=wait:{tmp_path / 'go'}")
    scan = asyncio.create_task(plugin.sr.ls(sr))
    [pid] = await started(tmp_path)
    scan.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scan
    assert not runs(pid)


async def test_a_driver_that_waits_holds_no_other_up_but_for_attaching(bench: Bench, tmp_path: Path) -> None:
    go = tmp_path / "go"
    plugin: DriverPlugin = await bench.plugin("testdummy")
    rows = [await bench.row("testdummy", hostile=f"sr_attach=wait:{go}") for _ in range(2)]
    attaching = [asyncio.create_task(plugin.sr.attach(uuid, bench.config(ref), bench.host.uuid)) for ref, uuid in rows]
    await started(tmp_path)
    ref, _ = await bench.row("testdummy")
    await bench.host.sr_call(plugin.program, ref, "sr_scan")
    assert len(bench.calls("sr_scan")) == 1
    assert len(bench.calls("sr_attach")) == 1
    go.touch()
    await asyncio.gather(*attaching)
    assert len(bench.calls("sr_attach")) == 2


async def test_a_session_that_has_ended_is_made_again(bench: Bench) -> None:
    plugin, sr, _ = await bench.attached("testdummy")
    first = bench.calls("sr_attach")[0]["session_ref"]
    await bench.client.raw("session.logout", first)
    await disk(plugin, sr)
    second = bench.calls("vdi_create")[0]["session_ref"]
    assert second != first
    await plugin.sr.detach(sr)
    assert bench.pool.store.row("session", second) is None


async def test_without_the_api_an_sr_is_not_attached_and_says_why(bench: Bench) -> None:
    plugin, _, ref = await bench.attached("testdummy")
    bench.begin()
    bench.host.xapi.socket, bench.host.xapi.patience = str(bench.folder / "nobody"), 0.0
    plugin = await bench.plugin("testdummy")
    with pytest.raises(ApiError, match="does not answer"):
        await plugin.sr.attach(bench.pool.row("SR", ref)["uuid"], {}, bench.host.uuid)
