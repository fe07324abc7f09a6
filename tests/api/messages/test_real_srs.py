"""SR and disk messages on real SRs of type file: what clients are told is what is on the medium."""

from __future__ import annotations

import base64
import hashlib

from shared.contracts.db import Update
from tests.api.core import records
from tests.api.messages.real_storage import Real
from tests.storage.support import MIB

KIB = 1 << 10


async def test_a_disk_and_its_family_live_in_two_srs(real: Real) -> None:
    """Snapshot, clone, copy, delta, revert, resize, and back to nothing."""
    call, rows = real.client.call, real.pool
    first, second = await real.sr("first"), await real.sr("second")
    disk = await real.disk(first)
    await real.write(disk, 64 * KIB, b"old" * 1000)
    snapshot = await call("VDI.snapshot", disk)
    await real.write(disk, 1 * MIB, b"new" * 1000)
    content = await real.content(disk)
    clone, copy = await call("VDI.clone", disk), await call("VDI.copy", disk, second)
    assert await real.content(clone) == await real.content(copy) == content
    assert await call("VDI.checksum", copy) == hashlib.md5(content).hexdigest()
    far = await call("VDI.copy", snapshot, second)
    assert await call("VDI.copy", disk, "OpaqueRef:NULL", snapshot, far) == far
    assert await real.content(far) == content
    await call("SR.scan", first)
    row = rows.row("VDI", snapshot)
    assert (row["is_a_snapshot"], row["snapshot_of"], row["read_only"]) == (True, disk, True)
    await call("VDI.resize", clone, 4 * MIB)
    assert rows.row("VDI", clone)["virtual_size"] == 4 * MIB
    assert (await real.client.refusal("VDI.resize", clone, MIB))[0] == "SR_BACKEND_FAILURE_79"
    await call("VDI.revert", snapshot)
    assert await real.content(disk) == await real.content(snapshot)
    for vdi in (snapshot, disk, clone, copy, far):
        await call("VDI.destroy", vdi)
    for sr in (first, second):
        [pbd] = rows.row("SR", sr)["PBDs"]
        await call("PBD.unplug", pbd)
        await call("SR.destroy", sr)
    assert real.bench.nothing_is_open()
    assert [str(path) for name in ("first", "second") for path in real.folder.joinpath(name).rglob("*.qcow2")] == []


async def test_changed_blocks_are_those_that_were_written(real: Real) -> None:
    call = real.client.call
    disk = await real.disk(await real.sr("sr"))
    await call("VDI.enable_cbt", disk)
    before = await call("VDI.snapshot", disk)
    await real.write(disk, 3 * 64 * KIB, b"x" * 10)
    after = await call("VDI.snapshot", disk)
    bitmap = base64.b64decode(await call("VDI.list_changed_blocks", before, after))
    assert bitmap[0] == 0b00010000
    assert not any(bitmap[1:])
    await call("VDI.data_destroy", before)
    await call("SR.scan", real.pool.row("VDI", disk)["SR"])
    assert real.pool.row("VDI", before)["type"] == "cbt_metadata"
    assert base64.b64decode(await call("VDI.list_changed_blocks", before, after)) == bitmap


async def test_a_forgotten_sr_comes_back_with_its_disks(real: Real) -> None:
    call, rows = real.client.call, real.pool
    sr = await real.sr("sr")
    disk = await real.disk(sr)
    await call("VDI.set_name_label", disk, "kept")
    snapshot = await call("VDI.snapshot", disk)
    uuid, known = rows.row("SR", sr)["uuid"], {rows.row("VDI", vdi)["uuid"] for vdi in (disk, snapshot)}
    [pbd] = rows.row("SR", sr)["PBDs"]
    config = dict(rows.row("PBD", pbd)["device_config"])
    await call("PBD.unplug", pbd)
    await call("SR.forget", sr)
    [found] = [one for one in await call("SR.probe_ext", rows.host_ref(0), config, "file", {}) if "sr" in one]
    assert found["sr"]["uuid"] == uuid
    again = await call("SR.introduce", uuid, "again", "", "file", "", False, {})
    record = {"host": rows.host_ref(0), "SR": again, "device_config": config, "other_config": {}}
    await call("PBD.plug", await call("PBD.create", record))
    disks = {rows.row("VDI", vdi)["uuid"]: rows.row("VDI", vdi) for vdi in rows.row("SR", again)["VDIs"]}
    assert disks.keys() == known
    assert {row["name_label"] for row in disks.values()} == {"kept"}
    [taken] = [row for row in disks.values() if row["is_a_snapshot"]]
    assert rows.row("VDI", taken["snapshot_of"])["uuid"] in known
    assert taken["snapshot_time"] > "2000"
    [clone] = [
        await call("VDI.clone", vdi) for vdi in rows.row("SR", again)["VDIs"] if rows.row("VDI", vdi)["is_a_snapshot"]
    ]
    await call("SR.scan", again)
    assert not rows.row("VDI", clone)["is_a_snapshot"]


async def test_a_disk_that_forgets_has_its_old_content_in_the_next_run(real: Real) -> None:
    call = real.client.call
    disk = await real.disk(await real.sr("sr"))
    await real.write(disk, 0, b"kept")
    vm = await real.pool.vm(real.client)
    await call("VBD.create", records.vbd(vm, disk))
    await call("VDI.set_on_boot", disk, "reset")
    for _ in range(2):
        await call("VM.start", vm, False, False)
        assert (await real.content(disk))[:8] == b"kept\0\0\0\0"
        await real.write(disk, 0, b"written")
        assert (await real.content(disk))[:7] == b"written"
        await call("VM.hard_shutdown", vm)


async def test_a_host_has_static_disks_until_it_is_told_otherwise(real: Real) -> None:
    pool, client = real.pool, real.pool.client()
    client.session = await client.raw("session.slave_login", pool.host_ref(0), pool.secret)
    host, vdi = pool.host_ref(0), await real.disk(await real.sr("sr"))
    dp = f"static/vdi/{pool.row('VDI', vdi)['uuid']}"
    for _ in range(2):
        await client.call("host.attach_static_vdis", host, {vdi: "HA statefile"})
        held = real.bench.host.datapaths.held()
        assert [(each.dp, each.state, each.writable) for each in held] == [(dp, "activated", True)]
    assert (await real.client.refusal("VDI.destroy", vdi))[0] == "VDI_IN_USE"
    for _ in range(2):
        await client.call("host.detach_static_vdis", host, [vdi])
        assert real.bench.nothing_is_open()
    await pool.write(Update(cls="VDI", ref=vdi, fields={"type": "cbt_metadata"}))
    assert await client.refusal("host.attach_static_vdis", host, {vdi: "x"}) == [
        *("VDI_INCOMPATIBLE_TYPE", vdi, "CBT metadata"),
    ]
    assert (await real.client.refusal("host.attach_static_vdis", host, {}))[0] == "INTERNAL_ERROR"
