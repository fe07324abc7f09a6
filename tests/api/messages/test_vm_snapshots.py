"""Snapshots of VMs, and going back to them, disks included."""

from __future__ import annotations

from typing import Any

from shared.contracts.db import Update
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool

NULL = "OpaqueRef:NULL"


def disks(pool: Pool) -> dict[str, Any]:
    return pool.disks.srs[pool.row("SR", pool.ref("SR", "storage"))["uuid"]]


async def with_disk(pool: Pool, client: Client, name: str = "vm") -> tuple[str, str]:
    """A halted VM and its disk."""
    vm = await pool.vm(client, name)
    vdi = str(await client.call("VDI.create", records.vdi(pool.ref("SR", "storage"))))
    await client.call("VBD.create", records.vbd(vm, vdi))
    return vm, vdi


def disk_of(pool: Pool, vm: str) -> str:
    [vbd] = pool.row("VM", vm)["VBDs"]
    return str(pool.row("VBD", vbd)["VDI"])


async def test_a_snapshot_has_snapshots_of_the_disks(pool: Pool, client: Client) -> None:
    vm, vdi = await with_disk(pool, client)
    snapshot = await client.call("VM.snapshot", vm, "before")
    copy = pool.row("VDI", disk_of(pool, snapshot))
    assert (copy["is_a_snapshot"], copy["snapshot_of"]) == (True, vdi)
    assert len(disks(pool)) == 2
    assert pool.row("VM", vm)["snapshots"] == [snapshot]
    assert leftovers(pool) == {}


async def test_ignored_disks_are_not_taken(pool: Pool, client: Client) -> None:
    vm, vdi = await with_disk(pool, client)
    snapshot = await client.call("VM.snapshot", vm, "before", [vdi])
    assert pool.row("VM", snapshot)["VBDs"] == []
    assert len(disks(pool)) == 1


async def test_a_running_vm_without_disks_is_snapshotted_and_runs_on(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.start", vm, False, False)
    snapshot = await client.call("VM.snapshot", vm, "live")
    assert pool.row("VM", snapshot)["power_state"] == "Halted"
    assert pool.row("VM", snapshot)["snapshot_info"]["power-state-at-snapshot"] == "Running"
    assert pool.row("VM", vm)["power_state"] == "Running"


async def test_disks_of_a_running_vm_are_taken_or_the_snapshot_is_not(pool: Pool, client: Client) -> None:
    vm, vdi = await with_disk(pool, client)
    await client.call("VM.start", vm, False, False)
    for host in pool.hosts:
        host.fail("storage.vdi_clone", ApiError("VDI_IN_USE", vdi, "snapshot"))
    assert (await client.refusal("VM.snapshot", vm, "live"))[0] == "VDI_IN_USE"
    assert len(disks(pool)) == 1
    for host in pool.hosts:
        host.undisturbed()
    snapshot = await client.call("VM.snapshot", vm, "live")
    assert pool.row("VDI", disk_of(pool, snapshot))["snapshot_of"] == vdi
    [vbd] = pool.row("VM", snapshot)["VBDs"]
    assert pool.row("VBD", vbd)["allowed_operations"] == ["attach"]
    assert leftovers(pool) == {}


async def test_disks_that_no_host_sees_are_not_copied(pool: Pool, client: Client) -> None:
    vm, _ = await with_disk(pool, client)
    off = {"currently_attached": False}
    await pool.write(*[Update(cls="PBD", ref=ref, fields=off) for ref in pool.store.rows("PBD")])
    for message in ("VM.snapshot", "VM.clone"):
        assert await client.refusal(message, vm, "x") == ["NO_HOSTS_AVAILABLE"]
    assert leftovers(pool) == {}


async def test_going_back_brings_settings_and_disk_and_removes_the_disk_of_before(pool: Pool, client: Client) -> None:
    vm, vdi = await with_disk(pool, client)
    snapshot = await client.call("VM.snapshot", vm, "before")
    await client.call("VM.set_name_label", vm, "renamed")
    await client.call("VM.revert", snapshot)
    row = pool.row("VM", vm)
    assert (row["name_label"], row["parent"], row["power_state"]) == ("vm", snapshot, "Halted")
    assert disk_of(pool, vm) != vdi
    assert pool.row("VDI", vdi) is None
    assert pool.row("VDI", disk_of(pool, snapshot))["snapshot_of"] == disk_of(pool, vm)
    assert len(disks(pool)) == 2
    assert leftovers(pool) == {}


async def test_going_back_twice_works(pool: Pool, client: Client) -> None:
    vm, _ = await with_disk(pool, client)
    snapshot = await client.call("VM.snapshot", vm, "before")
    for _ in range(2):
        await client.call("VM.revert", snapshot)
    assert len(disks(pool)) == 2
    assert pool.row("VM", vm)["snapshots"] == [snapshot]


async def test_a_disk_newer_than_the_snapshot_is_taken_off_and_kept(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    snapshot = await client.call("VM.snapshot", vm, "before")
    vdi = str(await client.call("VDI.create", records.vdi(pool.ref("SR", "storage"))))
    await client.call("VBD.create", records.vbd(vm, vdi))
    await client.call("VM.revert", snapshot)
    assert pool.row("VM", vm)["VBDs"] == []
    assert pool.row("VDI", vdi)["VBDs"] == []


async def test_a_running_vm_is_stopped_before_it_goes_back(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    snapshot = await client.call("VM.snapshot", vm, "before")
    await client.call("VM.start", vm, False, False)
    await client.call("VM.revert", snapshot)
    assert pool.row("VM", vm)["power_state"] == "Halted"
    assert leftovers(pool) == {}


async def test_only_snapshots_can_be_gone_back_to(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    assert await client.refusal("VM.revert", vm) == ["VM_REVERT_FAILED", vm, NULL]
    assert await client.refusal("VM.revert", "OpaqueRef:x") == ["HANDLE_INVALID", "VM", "OpaqueRef:x"]


async def test_snapshots_stand_between_a_vm_and_its_past(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    first = await client.call("VM.snapshot", vm, "first")
    second = await client.call("VM.snapshot", vm, "second")
    assert pool.row("VM", vm)["parent"] == second
    assert pool.row("VM", second)["parent"] == first
    await client.call("VM.destroy", second)
    assert pool.row("VM", vm)["parent"] == first
