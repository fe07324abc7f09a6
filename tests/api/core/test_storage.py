"""Disks and SRs: made, changed and removed on hosts, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from services.api.storage_hosts import rescan
from shared.contracts.db import Update
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.fake_host import MIB, FakeHost
from tests.api.harness import Client, Pool, error_of

FULL = ApiError("SR_FULL", "1", "2")


def sr_of(pool: Pool) -> str:
    return pool.ref("SR", "storage")


def disks(pool: Pool) -> dict[str, Any]:
    return pool.disks.srs[pool.row("SR", sr_of(pool))["uuid"]]


async def disk(pool: Pool, client: Client, **fields: Any) -> str:
    return str(await client.call("VDI.create", records.vdi(sr_of(pool), **fields)))


async def test_a_disk_is_made_and_destroyed(pool: Pool, client: Client) -> None:
    vdi = await disk(pool, client, size=5 * MIB)
    record = await client.call("VDI.get_record", vdi)
    assert disks(pool)[record["location"]].virtual_size == 5 * MIB
    assert (record["managed"], record["SR"], record["name_label"]) == (True, sr_of(pool), "disk")
    assert vdi in await client.call("SR.get_VDIs", sr_of(pool))
    await client.call("VDI.destroy", vdi)
    assert disks(pool) == {}
    assert await client.refusal("VDI.get_record", vdi) == ["HANDLE_INVALID", "VDI", vdi]
    assert leftovers(pool) == {}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"size": -1}, ["INVALID_VALUE", "virtual_size", "-1"]),
        ({"type": "cbt_metadata"}, ["VDI_INCOMPATIBLE_TYPE", "", "CBT metadata"]),
    ],
)
async def test_a_disk_that_cannot_be_is_refused(
    pool: Pool, client: Client, fields: dict[str, Any], error: list[str]
) -> None:
    assert await client.refusal("VDI.create", records.vdi(sr_of(pool), **fields)) == error
    assert disks(pool) == {}


async def test_a_disk_on_an_unknown_sr_is_refused(pool: Pool, client: Client) -> None:
    assert await client.refusal("VDI.create", records.vdi("x")) == ["HANDLE_INVALID", "SR", "x"]


async def test_a_full_sr_says_so_and_nothing_is_half_done(pool: Pool, client: Client) -> None:
    pool.disks.size = 10 * MIB
    await disk(pool, client, size=8 * MIB)
    assert (await client.refusal("VDI.create", records.vdi(sr_of(pool), size=4 * MIB)))[0] == "SR_FULL"
    assert len(disks(pool)) == len(pool.store.rows("VDI")) == 1
    assert leftovers(pool) == {}


async def test_a_disk_whose_row_cannot_be_written_is_removed_again(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    transact = pool.api.database.transact

    async def refuse(changes: Any, given: Any = ()) -> int:
        if any(type(change).__name__ == "Create" and change.cls == "VDI" for change in changes):
            raise ApiError("INTERNAL_ERROR", "not saved, nothing changed: disk full")
        return await transact(changes, given)

    monkeypatch.setattr(pool.api.database, "transact", refuse)
    assert (await client.refusal("VDI.create", records.vdi(sr_of(pool))))[0] == "INTERNAL_ERROR"
    assert disks(pool) == {}
    assert leftovers(pool) == {}


async def test_a_disk_that_cannot_be_destroyed_stays_in_the_rows(pool: Pool, client: Client) -> None:
    vdi = await disk(pool, client)
    for host in pool.hosts:
        host.fail("storage.vdi_destroy", ApiError("SR_BACKEND_FAILURE_1", "", "", ""))
    assert (await client.refusal("VDI.destroy", vdi))[0] == "SR_BACKEND_FAILURE_1"
    assert pool.row("VDI", vdi) is not None
    assert leftovers(pool) == {}
    await pool.settled()
    assert "destroy" in pool.row("VDI", vdi)["allowed_operations"]


async def test_a_disk_that_its_sr_has_lost_can_be_destroyed(pool: Pool, client: Client) -> None:
    vdi = await disk(pool, client)
    disks(pool).clear()
    await client.call("VDI.destroy", vdi)
    assert pool.row("VDI", vdi) is None


async def test_destroying_a_disk_takes_its_drives_along(pool: Pool, client: Client) -> None:
    vm, vdi = await pool.vm(client), await disk(pool, client)
    await client.call("VBD.create", records.vbd(vm, vdi))
    await client.call("VBD.create", records.vbd(vm, vdi, type="CD", mode="RO"))
    await pool.write(Update(cls="VM", ref=vm, fields={"suspend_VDI": vdi}))
    await client.call("VDI.destroy", vdi)
    assert pool.row("VM", vm)["VBDs"] == []
    assert pool.row("VM", vm)["suspend_VDI"] == "OpaqueRef:NULL"


async def test_copies_have_names_and_families(pool: Pool, client: Client) -> None:
    vdi = await disk(pool, client, size=3 * MIB, name_label="original", other_config={"k": "v"})
    clone = await client.call("VDI.clone", vdi)
    snapshot = await client.call("VDI.snapshot", vdi)
    copy = await client.call("VDI.copy", vdi, sr_of(pool))
    for one in (clone, snapshot, copy):
        row = pool.row("VDI", one)
        assert (row["virtual_size"], row["name_label"], row["other_config"]) == (3 * MIB, "original", {"k": "v"})
    assert (pool.row("VDI", snapshot)["is_a_snapshot"], pool.row("VDI", snapshot)["snapshot_of"]) == (True, vdi)
    assert pool.row("VDI", vdi)["snapshots"] == [snapshot]
    assert pool.row("VDI", clone)["snapshot_of"] == "OpaqueRef:NULL"
    assert len(disks(pool)) == 4
    assert leftovers(pool) == {}


async def test_a_disk_grows_and_never_shrinks(pool: Pool, client: Client) -> None:
    vdi = await disk(pool, client, size=2 * MIB)
    await client.call("VDI.resize", vdi, 4 * MIB)
    assert pool.row("VDI", vdi)["virtual_size"] == 4 * MIB
    assert (await client.refusal("VDI.resize", vdi, MIB))[0] == "SR_BACKEND_FAILURE_79"
    for host in pool.hosts:
        host.fail("storage.vdi_resize", FULL)
    assert await client.refusal("VDI.resize", vdi, 8 * MIB) == FULL.description
    assert pool.row("VDI", vdi)["virtual_size"] == 4 * MIB
    assert leftovers(pool) == {}


async def test_a_disk_in_use_is_not_destroyed(pool: Pool, client: Client) -> None:
    vm, vdi = await pool.vm(client), await disk(pool, client)
    await client.call("VBD.create", records.vbd(vm, vdi))
    await client.call("VM.start", vm, False, False)
    assert (await client.refusal("VDI.destroy", vdi))[0] == "VDI_IN_USE"
    other = await pool.vm(client, "other")
    await client.call("VBD.create", records.vbd(other, vdi))
    assert (await client.refusal("VM.start", other, False, False))[:2] == ["VDI_IN_USE", vdi]
    assert leftovers(pool) == {}


async def test_of_a_start_and_a_destruction_of_its_disk_at_the_same_time_one_is_refused(
    pool: Pool, client: Client
) -> None:
    for number in range(8):
        vm, vdi = await pool.vm(client, f"vm{number}"), await disk(pool, client)
        await client.call("VBD.create", records.vbd(vm, vdi))
        calls = [client.call("VM.start", vm, False, False), client.call("VDI.destroy", vdi)]
        started, destroyed = await asyncio.gather(*(calls if number % 2 else calls[::-1]), return_exceptions=True)
        if number % 2 == 0:
            started, destroyed = destroyed, started
        running = pool.row("VM", vm)["power_state"] == "Running"
        assert running == (started == "")
        assert (pool.row("VDI", vdi) is None) == (destroyed == "")
        if running and destroyed == "":
            assert pool.row("VM", vm)["VBDs"] == []  # the disk went first, its drive with it
            assert not pool.disks.open
        assert leftovers(pool) == {}
        if running:
            await client.call("VM.hard_shutdown", vm)


async def test_two_vms_that_start_with_one_disk_do_not_both_get_it(pool: Pool, client: Client) -> None:
    vdi = await disk(pool, client)
    vms = [await pool.vm(client, f"vm{number}") for number in range(4)]
    for vm in vms:
        await client.call("VBD.create", records.vbd(vm, vdi))
    calls = [client.call("VM.start", vm, False, False) for vm in vms]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes.count("") == 1
    assert {one.code for one in outcomes if isinstance(one, ApiError)} == {"VDI_IN_USE"}
    assert leftovers(pool) == {}


# ---- scans


async def test_a_scan_finds_new_disks_and_drops_lost_ones(pool: Pool, client: Client) -> None:
    kept, lost = await disk(pool, client), await disk(pool, client)
    location = pool.row("VDI", lost)["location"]
    found = disks(pool).pop(location)
    disks(pool)["new"] = msgspec.structs.replace(found, uuid="new", location="new", name_label="found")
    await client.call("SR.scan", sr_of(pool))
    assert pool.row("VDI", lost) is None
    assert pool.row("VDI", kept) is not None
    [vdi] = await client.call("VDI.get_by_name_label", "found")
    assert (pool.row("VDI", vdi)["uuid"], pool.row("VDI", vdi)["SR"]) == ("new", sr_of(pool))
    assert leftovers(pool) == {}


async def test_a_scan_and_work_on_disks_wait_for_one_another(pool: Pool, client: Client) -> None:
    sr = sr_of(pool)
    made = pool.hosts[0].hold("storage.vdi_create")
    creating = asyncio.create_task(disk(pool, client))
    await made.reached.wait()
    assert list(pool.row("SR", sr)["current_operations"].values()) == ["vdi_create"]
    assert pool.row("SR", sr)["allowed_operations"] == []
    other = await disk(pool, client)  # work on several disks needs no turns
    scanning = client.begin("SR.scan", sr)
    made.open()
    await asyncio.gather(creating, scanning)
    assert len(pool.store.rows("VDI")) == 2
    scanned = pool.hosts[0].hold("storage.sr_scan")
    scanning = client.begin("SR.scan", sr)
    await scanned.reached.wait()
    destroying = client.begin("VDI.destroy", other)
    await pool.until(lambda: "scan" in pool.row("SR", sr)["current_operations"].values())
    assert not destroying.done()
    scanned.open()
    await asyncio.gather(scanning, destroying)
    assert leftovers(pool) == {}
    assert "vdi_create" in pool.row("SR", sr)["allowed_operations"]


def bringing_in(pool: Pool) -> asyncio.Task[None]:
    """What a host that comes back brings about: a scan of its SRs that waits for nobody."""
    return asyncio.create_task(rescan(pool.api, sr_of(pool), pool.hosts[1].uuid))


async def test_a_disk_made_while_a_host_comes_in_is_neither_dropped_nor_doubled(pool: Pool, client: Client) -> None:
    for moment in (FakeHost.hold, FakeHost.after):
        gate = moment(pool.hosts[1], "storage.sr_scan")
        scanning = bringing_in(pool)
        await gate.reached.wait()
        first = await disk(pool, client)
        made = pool.hosts[0].after("storage.vdi_create")
        second = asyncio.create_task(disk(pool, client))
        await made.reached.wait()
        gate.open()
        await scanning
        made.open()
        assert {first, await second} <= set(pool.store.rows("VDI"))
        assert leftovers(pool) == {}
        uuids = [row["uuid"] for row in pool.store.rows("VDI").values()]
        assert len(uuids) == len(set(uuids)) == len(disks(pool))


async def test_a_disk_destroyed_while_a_host_comes_in_does_not_come_back(pool: Pool, client: Client) -> None:
    vdi = await disk(pool, client)
    gate = pool.hosts[1].after("storage.sr_scan")
    scanning = bringing_in(pool)
    await gate.reached.wait()
    await client.call("VDI.destroy", vdi)
    gate.open()
    await scanning
    assert pool.store.rows("VDI") == {}
    assert leftovers(pool) == {}


async def test_two_scans_at_once_find_a_disk_once(pool: Pool, client: Client) -> None:
    vdi = await disk(pool, client)
    await client.call("VDI.forget", vdi)
    pbds = [pbd for number in (0, 1) for pbd in pool.row("host", pool.host_ref(number))["PBDs"]]
    for pbd in pbds:
        await client.call("PBD.unplug", pbd)
    await asyncio.gather(*(client.call("PBD.plug", pbd) for pbd in pbds))
    assert len(pool.store.rows("VDI")) == 1


# ---- SRs


async def test_an_sr_is_made_on_all_live_hosts_and_destroyed(pool: Pool, client: Client) -> None:
    arguments = [pool.host_ref(0), {}, 0, "mine", "", "fake", "user", True, {}]
    sr = await client.call("SR.create", *arguments)
    record = await client.call("SR.get_record", sr)
    assert len(record["PBDs"]) == 2
    assert all(record["uuid"] in host.attached for host in pool.hosts)
    assert (await client.refusal("SR.destroy", sr))[0] == "SR_HAS_PBD"
    for pbd in record["PBDs"]:
        await client.call("PBD.unplug", pbd)
    await client.call("SR.destroy", sr)
    assert record["uuid"] not in pool.disks.srs
    assert pool.row("SR", sr) is None
    assert leftovers(pool) == {}


async def test_an_sr_that_a_host_cannot_attach_is_made_all_the_same(pool: Pool, client: Client) -> None:
    pool.hosts[1].fail("storage.sr_attach", ApiError("SR_BACKEND_FAILURE_1", "", "", ""))
    arguments = [pool.host_ref(0), {}, 0, "mine", "", "fake", "user", True, {}]
    sr = await client.call("SR.create", *arguments)
    attached = {pool.row("PBD", pbd)["host"]: pool.row("PBD", pbd)["currently_attached"] for pbd in pbds(pool, sr)}
    assert attached == {pool.host_ref(0): True, pool.host_ref(1): False}
    assert leftovers(pool) == {}


def pbds(pool: Pool, sr: str) -> list[str]:
    return list(pool.row("SR", sr)["PBDs"])


async def test_an_sr_whose_medium_cannot_be_made_leaves_no_rows(pool: Pool, client: Client) -> None:
    before = {cls: set(pool.store.rows(cls)) for cls in ("SR", "PBD", "secret")}
    pool.hosts[0].fail("storage.sr_create", ApiError("SR_DEVICE_IN_USE"))
    arguments = [pool.host_ref(0), {"password": "x"}, 0, "mine", "", "fake", "user", True, {}]
    assert await client.refusal("SR.create", *arguments) == ["SR_DEVICE_IN_USE"]
    assert {cls: set(pool.store.rows(cls)) for cls in before} == before
    assert leftovers(pool) == {}


async def test_an_sr_of_an_unknown_type_is_refused(pool: Pool, client: Client) -> None:
    arguments = [pool.host_ref(0), {}, 0, "mine", "", "frob", "user", True, {}]
    assert await client.refusal("SR.create", *arguments) == ["SR_UNKNOWN_DRIVER", "frob"]
    assert "fake" in await client.call("SR.get_supported_types")


async def test_without_a_live_host_storage_says_why(pool: Pool, client: Client) -> None:
    unplugged = {"currently_attached": False}
    await pool.write(*[Update(cls="PBD", ref=ref, fields=unplugged) for ref in pool.store.rows("PBD")])
    assert await error_of(disk(pool, client)) == ["SR_HAS_NO_PBDS", sr_of(pool)]


async def test_storage_work_goes_to_a_live_host(pool: Pool, client: Client) -> None:
    metrics = pool.row("host", pool.host_ref(0))["metrics"]
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    await disk(pool, client)
    assert "storage.vdi_create" in pool.hosts[1].served
    assert "storage.vdi_create" not in pool.hosts[0].served
