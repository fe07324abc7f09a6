"""Clones, snapshots and copies: where they are made, what they know of their source, what is left when they fail."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.contracts import storage
from shared.contracts.db import Create, Delete, MapPut, Update
from shared.contracts.transfer import Copy
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.fake_host import MIB, FakeHost
from tests.api.harness import Client, Pool

NULL = "OpaqueRef:NULL"
UNIMPLEMENTED = ApiError("UNIMPLEMENTED_IN_SM_BACKEND", "sr")


def sr_of(pool: Pool) -> str:
    return pool.ref("SR", "storage")


async def another_sr(pool: Pool, client: Client) -> str:
    sr = await client.call("SR.create", pool.host_ref(0), {}, 0, "other", "", "fake", "", True, {})
    return str(sr)


def fail_everywhere(pool: Pool, method: str, error: ApiError) -> None:
    for host in pool.hosts:
        host.fail(method, error)


def copies(pool: Pool) -> list[Copy]:
    return [request for request in pool.disks.asked if isinstance(request, Copy)]


@pytest.fixture
async def disk(pool: Pool, client: Client) -> str:
    record = records.vdi(sr_of(pool), 3 * MIB, other_config={"k": "v"}, tags=["t"], xenstore_data={"x": "y"})
    vdi = str(await client.call("VDI.create", record))
    pool.disks.content[pool.row("VDI", vdi)["location"]] = "precious"
    return vdi


def content(pool: Pool, vdi: str) -> str | None:
    return pool.disks.content.get(pool.row("VDI", vdi)["location"])


async def test_a_copy_goes_to_another_sr_with_all_but_what_the_sr_keeps(pool: Pool, client: Client, disk: str) -> None:
    await pool.write(MapPut(cls="VDI", ref=disk, field="sm_config", key="lock", value="held", new=True))
    sr = await another_sr(pool, client)
    copy = await client.call("VDI.copy", disk, sr)
    row = pool.row("VDI", copy)
    assert (row["SR"], row["virtual_size"], content(pool, copy)) == (sr, 3 * MIB, "precious")
    assert (row["other_config"], row["tags"], row["xenstore_data"]) == ({"k": "v"}, ["t"], {"x": "y"})
    assert row["sm_config"] == {}
    assert copies(pool)[0].zeroed
    assert "storage.copy" in pool.hosts[1].served  # the coordinator has enough to do
    assert leftovers(pool) == {}


async def test_a_copy_that_fails_leaves_no_disk(pool: Pool, client: Client, disk: str) -> None:
    sr = await another_sr(pool, client)
    fail_everywhere(pool, "storage.copy", ApiError("VDI_COPY_FAILED"))
    assert (await client.refusal("VDI.copy", disk, sr))[0] == "VDI_COPY_FAILED"
    assert set(pool.store.rows("VDI")) == {disk}
    assert leftovers(pool) == {}


async def test_a_copy_into_a_disk_may_be_of_what_differs_from_another(pool: Pool, client: Client, disk: str) -> None:
    base = await client.call("VDI.snapshot", disk)
    target = await client.call("VDI.create", records.vdi(sr_of(pool), 4 * MIB))
    assert await client.call("VDI.copy", disk, NULL, base, target) == target
    [asked] = copies(pool)
    assert asked.base == pool.row("VDI", base)["location"]
    assert not asked.zeroed  # there may be something in it
    await pool.write(Update(cls="SR", ref=sr_of(pool), fields={"type": "lvm"}))
    [driver] = pool.store.rows("SM")
    await pool.write(Update(cls="SM", ref=driver, fields={"type": "lvm"}))
    assert await client.call("VDI.copy", disk, NULL, base, target) == target
    await pool.write(Update(cls="SM", ref=driver, fields={"required_api_version": "1.0"}))
    assert await client.refusal("VDI.copy", disk, NULL, base, target) == ["VDI_NOT_SPARSE", target]


async def test_zeros_are_written_only_where_a_driver_s_new_volumes_hold_what_was_there_before(
    pool: Pool, client: Client, disk: str
) -> None:
    sr = await another_sr(pool, client)
    await pool.write(Update(cls="SR", ref=sr, fields={"type": "lvm"}))
    ours = {"type": "lvm", "name_label": "lvm", "required_api_version": "5.0"}
    features = pool.row("SM", next(iter(pool.store.rows("SM"))))["features"]
    await pool.write(Create(cls="SM", ref="OpaqueRef:lvm", fields={**ours, "features": features}))
    await client.call("VDI.copy", disk, sr)
    await pool.write(Update(cls="SM", ref="OpaqueRef:lvm", fields={"required_api_version": "1.0"}))
    await client.call("VDI.copy", disk, sr)
    assert [copy.zeroed for copy in copies(pool)] == [True, False]


async def test_a_disk_is_copied_to_a_host_that_does_not_see_it(pool: Pool, client: Client, disk: str) -> None:
    """But not to an SR that no host sees."""
    sr = await another_sr(pool, client)
    for number, one in ((0, sr), (1, sr_of(pool))):
        for pbd in pool.row("SR", one)["PBDs"]:
            if pool.row("PBD", pbd)["host"] == pool.host_ref(number):
                await client.call("PBD.unplug", pbd)
    copy = await client.call("VDI.copy", disk, sr)
    assert content(pool, copy) == "precious"
    assert copies(pool)[0].to_host == pool.hosts[1].uuid
    assert "storage.copy" in pool.hosts[0].served
    assert leftovers(pool) == {}
    fail_everywhere(pool, "storage.copy", ApiError("HOST_OFFLINE", pool.hosts[0].uuid))
    assert (await client.refusal("VDI.copy", disk, sr))[0] == "HOST_OFFLINE"
    assert pool.hosts[1].served[-2:] == ["storage.receive_end", "storage.vdi_destroy"]
    for pbd in pool.row("SR", sr)["PBDs"]:
        await client.call("PBD.unplug", pbd)
    assert await client.refusal("VDI.copy", disk, sr) == ["SR_HAS_NO_PBDS", sr]
    assert set(pool.store.rows("VDI")) == {disk, copy}


async def test_what_an_sr_cannot_clone_is_copied(pool: Pool, client: Client, disk: str) -> None:
    fail_everywhere(pool, "storage.vdi_clone", UNIMPLEMENTED)
    gates = [host.hold("storage.copy") for host in pool.hosts]
    cloning = client.begin("VDI.clone", disk)
    await gates[0].reached.wait()
    assert pool.row("VDI", disk)["current_operations"] == pool.row("SR", sr_of(pool))["current_operations"] == {}
    gates[0].open()
    clone = await cloning
    assert content(pool, clone) == "precious"
    assert pool.row("VDI", clone)["other_config"] == {"k": "v"}
    assert leftovers(pool) == {}
    fail_everywhere(pool, "storage.vdi_clone", UNIMPLEMENTED)
    assert await client.refusal("VDI.snapshot", disk) == ["UNIMPLEMENTED_IN_SM_BACKEND", "sr"]


async def test_a_disk_that_a_vm_writes_to_is_snapshotted_on_its_host(pool: Pool, client: Client, disk: str) -> None:
    vm = await pool.vm(client)
    vbd = await client.call("VBD.create", records.vbd(vm, disk))
    await client.call("VM.start_on", vm, pool.host_ref(1), False, False)
    await pool.write(Update(cls="VBD", ref=vbd, fields={"currently_attached": True}))
    await client.call("VDI.snapshot", disk)
    assert "storage.vdi_clone" in pool.hosts[1].served
    [driver] = pool.store.rows("SM")
    await pool.write(Update(cls="SM", ref=driver, fields={"required_api_version": "1.0"}))
    await client.call("VDI.snapshot", disk)
    assert "storage.vdi_clone" in pool.hosts[0].served  # a SMAPIv1 driver finds the others itself


async def test_a_row_that_the_driver_has_written_is_taken(
    pool: Pool, client: Client, disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It chooses the uuid, too, and removes the row of a disk that it destroys."""
    made = FakeHost._made

    def chooses(self: FakeHost, sr: str, request: Any, size: int) -> storage.VdiInfo:
        return made(self, sr, msgspec.structs.replace(request, uuid="chosen"), size)

    async def writes() -> None:
        fields = {"SR": sr_of(pool), "uuid": "chosen", "location": "chosen", "sm_config": {"own": "1"}, "managed": True}
        await pool.write(Create(cls="VDI", ref="OpaqueRef:chosen", fields=fields))

    monkeypatch.setattr(FakeHost, "_made", chooses)
    pool.hosts[0].then("storage.vdi_clone", writes)
    snapshot = await client.call("VDI.snapshot", disk)
    assert snapshot == "OpaqueRef:chosen"
    row = pool.row("VDI", snapshot)
    assert (row["sm_config"], row["snapshot_of"], row["other_config"]) == ({"own": "1"}, disk, {"k": "v"})

    async def removes() -> None:
        await pool.write(Delete(cls="VDI", ref=snapshot))

    pool.hosts[0].then("after storage.vdi_destroy", removes)
    await client.call("VDI.destroy", snapshot)
    assert leftovers(pool) == {}


async def test_a_vm_is_copied_to_another_sr(pool: Pool, client: Client, disk: str) -> None:
    vm, sr = await pool.vm(client), await another_sr(pool, client)
    await client.call("VBD.create", records.vbd(vm, disk))
    copy = await client.call("VM.copy", vm, "copy", sr)
    [vbd] = pool.row("VM", copy)["VBDs"]
    vdi = pool.row("VBD", vbd)["VDI"]
    assert (pool.row("VDI", vdi)["SR"], content(pool, vdi)) == (sr, "precious")
    assert (await client.refusal("VM.copy", vm, "copy", "OpaqueRef:x"))[:2] == ["HANDLE_INVALID", "SR"]
    assert leftovers(pool) == {}


async def test_a_checksum_tells_what_is_in_a_disk(pool: Pool, client: Client, disk: str) -> None:
    assert await client.call("VDI.checksum", disk) == "precious"
    name = pool.row("VDI", disk)["other_config"]["content_id"]
    await client.call("VDI.checksum", disk)
    assert pool.row("VDI", disk)["other_config"] == {"k": "v", "content_id": name}
    assert (await client.refusal("VDI.checksum", "OpaqueRef:x"))[:2] == ["HANDLE_INVALID", "VDI"]
