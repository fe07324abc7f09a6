"""What SRs do to the content of disks: changed blocks, going back to a snapshot, forgetting a run."""

from __future__ import annotations

import msgspec
import pytest

from services.api.operations import vdi_cbt
from services.api.storage_hosts import rescan
from shared.contracts.db import MapPut, Update
from shared.contracts.storage import Epoch
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool


def sr_of(pool: Pool) -> str:
    return pool.ref("SR", "storage")


@pytest.fixture
async def disk(pool: Pool, client: Client) -> str:
    """Of a driver that can do everything."""
    names = ("VDI_CONFIG_CBT", "VDI_REVERT", "VDI_RESIZE_ONLINE", "VDI_GENERATE_CONFIG", "VDI_RESET_ON_BOOT")
    [driver] = pool.store.rows("SM")
    lent = [MapPut(cls="SM", ref=driver, field="features", key=name, value=1, new=True) for name in names]
    await pool.write(*lent)
    return str(await client.call("VDI.create", records.vdi(sr_of(pool))))


async def test_changed_blocks_are_tracked_and_told(pool: Pool, client: Client, disk: str) -> None:
    await client.call("VDI.enable_cbt", disk)
    await client.call("VDI.enable_cbt", disk)
    assert pool.row("VDI", disk)["cbt_enabled"]
    assert [host.served.count("storage.vdi_enable_cbt") for host in pool.hosts] == [1, 0]
    snapshot = await client.call("VDI.snapshot", disk)
    places = [pool.row("VDI", vdi)["location"] for vdi in (snapshot, disk)]
    assert await client.call("VDI.list_changed_blocks", snapshot, disk) == ">".join(places)
    assert (await client.refusal("VDI.list_changed_blocks", "OpaqueRef:x", disk))[0] == "HANDLE_INVALID"
    await client.call("VDI.disable_cbt", disk)
    assert not pool.row("VDI", disk)["cbt_enabled"]
    assert leftovers(pool) == {}


async def test_without_its_data_a_snapshot_still_knows_what_has_changed(
    pool: Pool, client: Client, disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vdi_cbt, "VBDS_VANISH", 0.05)
    await client.call("VDI.enable_cbt", disk)
    snapshot = await client.call("VDI.snapshot", disk)
    assert await client.refusal("VDI.data_destroy", disk) == [
        "OPERATION_NOT_ALLOWED",
        "only the content of a snapshot can be destroyed alone",
    ]
    assert await client.refusal("VDI.data_destroy", snapshot) == ["VDI_NO_CBT_METADATA", snapshot]
    await pool.write(Update(cls="VDI", ref=snapshot, fields={"cbt_enabled": True}))
    place = pool.row("VDI", snapshot)["location"]
    disks = pool.disks.srs[pool.row("SR", sr_of(pool))["uuid"]]
    disks[place] = msgspec.structs.replace(disks[place], cbt_enabled=True)
    vbd = await client.call("VBD.create", records.vbd(await pool.vm(client), snapshot))
    assert await client.refusal("VDI.data_destroy", snapshot) == ["VDI_IN_USE", snapshot, "data_destroy"]
    assert pool.row("VDI", snapshot)["type"] == "user"
    await client.call("VBD.destroy", vbd)
    for host in pool.hosts:
        host.fail("storage.vdi_data_destroy", ApiError("SR_BACKEND_FAILURE_1", "", "", ""))
    assert (await client.refusal("VDI.data_destroy", snapshot))[0] == "SR_BACKEND_FAILURE_1"
    assert pool.row("VDI", snapshot)["type"] == "user"
    for host in pool.hosts:
        host.undisturbed()
    held = pool.hosts[0].hold("storage.vdi_data_destroy")
    destroying = client.begin("VDI.data_destroy", snapshot)
    await held.reached.wait()
    await rescan(pool.api, sr_of(pool), pool.hosts[1].uuid)
    assert pool.row("VDI", snapshot)["type"] == "cbt_metadata"
    held.open()
    await destroying
    await client.call("VDI.data_destroy", snapshot)
    assert pool.row("VDI", snapshot)["type"] == "cbt_metadata"
    await client.call("SR.scan", sr_of(pool))
    assert pool.row("VDI", snapshot)["type"] == "cbt_metadata"
    assert (await client.refusal("VDI.clone", snapshot))[0] == "VDI_INCOMPATIBLE_TYPE"
    assert leftovers(pool) == {}


async def test_a_disk_goes_back_to_its_snapshot(pool: Pool, client: Client, disk: str) -> None:
    snapshot = await client.call("VDI.snapshot", disk)
    await client.call("VDI.resize_online", disk, 2 << 20)
    assert pool.row("VDI", disk)["virtual_size"] == 2 << 20
    held = pool.hosts[0].hold("storage.vdi_revert")
    reverting = client.begin("VDI.revert", snapshot)
    await held.reached.wait()
    operations = [list(pool.row("VDI", vdi)["current_operations"].values()) for vdi in (snapshot, disk)]
    assert operations == [["revert_to"], ["revert_from"]]
    held.open()
    await reverting
    assert pool.row("VDI", disk)["virtual_size"] == 1 << 20
    assert await client.refusal("VDI.revert", disk) == ["REVERT_ONLY_ALLOWED_ON_SNAPSHOT"]
    await client.call("VDI.destroy", disk)
    assert (await client.refusal("VDI.revert", snapshot))[:2] == ["HANDLE_INVALID", "VDI"]
    assert leftovers(pool) == {}


async def test_a_disk_can_be_attached_without_a_database(pool: Pool, client: Client, disk: str) -> None:
    config = await client.call("VDI.generate_config", pool.host_ref(1), disk)
    assert config == f"{pool.hosts[1].uuid} {pool.row('VDI', disk)['location']}"
    assert await client.refusal("VDI.generate_config", "OpaqueRef:x", disk) == ["HOST_OFFLINE", "OpaqueRef:x"]


def epochs(pool: Pool) -> list[bool]:
    return [request.begin for request in pool.disks.asked if isinstance(request, Epoch)]


async def test_a_disk_that_forgets_is_told_when_its_vm_begins_and_ends(pool: Pool, client: Client, disk: str) -> None:
    vm = await pool.vm(client)
    await client.call("VBD.create", records.vbd(vm, disk))
    await client.call("VDI.set_on_boot", disk, "reset")
    assert pool.row("VDI", disk)["on_boot"] == "reset"
    refused = await client.refusal("VDI.snapshot", disk)
    assert refused[0] == "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"
    await client.call("VM.start", vm, False, False)
    assert epochs(pool) == [True]
    await client.call("VM.hard_reboot", vm)
    assert epochs(pool) == [True, False, True]
    assert pool.row("VM", vm)["power_state"] == "Running"
    await client.call("VM.hard_shutdown", vm)
    assert epochs(pool) == [True, False, True, False]
    await client.call("VDI.set_on_boot", disk, "persist")
    await client.call("VM.start", vm, False, False)
    assert epochs(pool) == [True, False, True, False]


async def test_a_reboot_that_does_not_come_up_again_leaves_the_vm_halted(pool: Pool, client: Client, disk: str) -> None:
    vm = await pool.vm(client)
    await client.call("VBD.create", records.vbd(vm, disk))
    await client.call("VDI.set_on_boot", disk, "reset")
    await client.call("VM.start", vm, False, False)
    pool.host_of(vm).fail("storage.vdi_epoch", ApiError("SR_BACKEND_FAILURE_1", "", "", ""))  # the end: not so bad
    pool.host_of(vm).fail("storage.vdi_epoch", ApiError("SR_BACKEND_FAILURE_1", "", "", ""))
    assert (await client.refusal("VM.hard_reboot", vm))[0] == "SR_BACKEND_FAILURE_1"
    assert pool.row("VM", vm)["power_state"] == "Halted"
    assert leftovers(pool) == {}


async def test_a_disk_moves_only_between_srs_that_can_do_it(pool: Pool, client: Client, disk: str) -> None:
    sr = sr_of(pool)
    other = await client.call("SR.create", pool.host_ref(0), {}, 0, "other", "", "fake", "", True, {})
    assert await client.refusal("VDI.pool_migrate", disk, other, {}) == ["VDI_NEEDS_VM_FOR_MIGRATE", disk]
    vm = await pool.vm(client)
    await client.call("VBD.create", records.vbd(vm, disk))
    assert await client.refusal("VDI.pool_migrate", disk, other, {}) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    [driver] = pool.store.rows("SM")
    await pool.write(MapPut(cls="SM", ref=driver, field="features", key="VDI_MIRROR", value=1, new=True))
    assert (await client.refusal("VDI.pool_migrate", disk, "OpaqueRef:x", {}))[:2] == ["HANDLE_INVALID", "SR"]
    await pool.write(Update(cls="SR", ref=other, fields={"type": "unknown"}))
    missing = ["SR_DOES_NOT_SUPPORT_MIGRATION", other, "VDI_SNAPSHOT;VDI_MIRROR_IN"]
    assert await client.refusal("VDI.pool_migrate", disk, other, {}) == missing
    for pbd in pool.row("SR", other)["PBDs"]:
        await client.call("PBD.unplug", pbd)
    assert await client.refusal("VDI.pool_migrate", disk, other, {}) == ["NO_HOSTS_AVAILABLE"]
