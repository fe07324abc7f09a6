"""Disks' records: what only a storage plug-in may say of them, how they come and go without the disk."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from shared.contracts.db import MapPut, SetAdd, SetDrop, Update
from tests.api.core import records
from tests.api.harness import Client, Pool

NULL = "OpaqueRef:NULL"
UUID = "00000000-0000-4000-8000-0000000000bb"
EPOCH = "19700101T00:00:00Z"


def sr_of(pool: Pool) -> str:
    return pool.ref("SR", "storage")


def described(sr: str, uuid: str = UUID, location: str = "loc", **fields: Any) -> list[Any]:
    """Parameters of the messages that introduce a disk."""
    record: dict[str, Any] = {
        "uuid": uuid,
        "name_label": "n",
        "name_description": "d",
        "SR": sr,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {"a": "b"},
        "location": location,
        "xenstore_data": {},
        "sm_config": {},
        "managed": True,
        "virtual_size": 4096,
        "physical_utilisation": 0,
        "metadata_of_pool": NULL,
        "is_a_snapshot": False,
        "snapshot_time": EPOCH,
        "snapshot_of": NULL,
    }
    return list((record | fields).values())


@pytest.fixture
async def disk(pool: Pool, client: Client) -> str:
    return str(await client.call("VDI.create", records.vdi(sr_of(pool))))


async def act_as_plugin(pool: Pool, client: Client) -> None:
    """The session becomes one of the SR's plug-in."""
    owned = MapPut(cls="session", ref=client.session, field="other_config", key="_sm_session", value=sr_of(pool))
    await pool.write(owned)


# ---- what the SR says


REPORTED = {
    "sharable": True,
    "managed": False,
    "read_only": True,
    "missing": True,
    "cbt_enabled": True,
    "virtual_size": 1,
    "physical_utilisation": 7,
    "is_a_snapshot": True,
    "snapshot_of": NULL,
    "snapshot_time": EPOCH,
    "metadata_of_pool": NULL,
}


async def test_only_the_plug_in_of_its_sr_says_what_a_disk_is(pool: Pool, client: Client, disk: str) -> None:
    for field, value in REPORTED.items():
        setter, before = f"VDI.set_{field}", pool.row("VDI", disk)[field]
        assert await client.refusal(setter, "OpaqueRef:x", value) == ["HANDLE_INVALID", "VDI", "OpaqueRef:x"]
        assert (await client.refusal(setter, disk, value))[0] == "PERMISSION_DENIED"
        assert pool.row("VDI", disk)[field] == before
    await act_as_plugin(pool, client)
    for field, value in REPORTED.items():
        await client.call(f"VDI.set_{field}", disk, value)
        assert pool.row("VDI", disk)[field] == value


async def test_names_are_set_while_the_sr_is_attached(pool: Pool, client: Client, disk: str) -> None:
    await client.call("VDI.set_name_label", disk, "new")
    assert pool.row("VDI", disk)["name_label"] == "new"
    off = {"currently_attached": False}
    await pool.write(*[Update(cls="PBD", ref=ref, fields=off) for ref in pool.store.rows("PBD")])
    assert await client.refusal("VDI.set_name_label", disk, "x") == ["SR_HAS_NO_PBDS", sr_of(pool)]
    assert await client.refusal("SR.set_name_label", sr_of(pool), "x") == ["SR_HAS_NO_PBDS", sr_of(pool)]


async def test_caching_is_for_vms_that_start(pool: Pool, client: Client, disk: str) -> None:
    vm = await pool.vm(client)
    await client.call("VBD.create", records.vbd(vm, disk))
    await client.call("VDI.set_allow_caching", disk, True)
    await client.call("VM.start", vm, False, False)
    assert await client.refusal("VDI.set_allow_caching", disk, False) == [
        "VM_BAD_POWER_STATE",
        vm,
        "halted",
        "running",
    ]
    assert await client.refusal("VDI.set_on_boot", disk, "reset") == ["VM_BAD_POWER_STATE", vm, "halted", "running"]


# ---- records without disks, disks without records


async def test_a_forgotten_disk_is_introduced_again(pool: Pool, client: Client, disk: str) -> None:
    before = pool.row("VDI", disk)
    uuid, place, size = before["uuid"], before["location"], before["virtual_size"]
    await client.call("VDI.forget", disk)
    assert await client.refusal("VDI.introduce", *described("OpaqueRef:x")) == ["HANDLE_INVALID", "SR", "OpaqueRef:x"]
    nowhere = await client.refusal("VDI.introduce", *described(sr_of(pool)))
    assert nowhere == ["VDI_MISSING", sr_of(pool), "loc"]
    again = await client.call("VDI.introduce", *described(sr_of(pool), uuid, place, virtual_size=1))
    row = pool.row("VDI", again)
    assert (row["uuid"], row["name_label"], row["other_config"], row["managed"]) == (uuid, "n", {"a": "b"}, True)
    assert row["virtual_size"] == size
    assert "resize" in row["allowed_operations"]
    assert await client.call("VDI.introduce", *described(sr_of(pool), uuid, place)) == again
    taken = await client.refusal("VDI.introduce", *described(sr_of(pool), location=place))
    assert taken == ["LOCATION_NOT_UNIQUE", sr_of(pool), place]


async def test_an_update_brings_what_the_sr_knows_now(pool: Pool, client: Client, disk: str) -> None:
    size = pool.row("VDI", disk)["virtual_size"]
    await pool.write(Update(cls="VDI", ref=disk, fields={"virtual_size": 1}))
    await client.call("VDI.update", disk)
    assert pool.row("VDI", disk)["virtual_size"] == size
    pool.disks.srs[pool.row("SR", sr_of(pool))["uuid"]].clear()
    missing = ["VDI_MISSING", sr_of(pool), disk]
    assert await client.refusal("VDI.update", disk) == missing


async def test_records_alone_are_introduced_with_a_uuid_and_a_place_of_their_own(pool: Pool, client: Client) -> None:
    vdi = await client.call("VDI.pool_introduce", *described(sr_of(pool)), False)
    assert pool.row("VDI", vdi)["virtual_size"] == 4096
    place = await client.refusal("VDI.pool_introduce", *described(sr_of(pool)))
    assert place == ["LOCATION_NOT_UNIQUE", sr_of(pool), "loc"]
    odd = await client.refusal("VDI.pool_introduce", *described(sr_of(pool), "x", "there"))
    assert odd == ["UUID_INVALID", "VDI", "x"]
    same = await client.refusal("VDI.pool_introduce", *described(sr_of(pool), location="there"))
    assert same == ["DB_UNIQUENESS_CONSTRAINT_VIOLATION", "VDI", "uuid", UUID]
    assert (await client.refusal("VDI.pool_introduce", *described("OpaqueRef:x")))[0] == "HANDLE_INVALID"


async def test_a_plug_in_makes_and_removes_records(pool: Pool, client: Client) -> None:
    assert (await client.refusal("VDI.db_introduce", *described(sr_of(pool))))[0] == "PERMISSION_DENIED"
    assert (await client.refusal("VDI.db_introduce", *described("OpaqueRef:x")))[0] == "PERMISSION_DENIED"
    await act_as_plugin(pool, client)
    vdi = await client.call("VDI.db_introduce", *described(sr_of(pool)))
    vm = await pool.vm(client)
    drive = records.vbd(vm, vdi, type="CD", mode="RO")
    cd = await client.call("VBD.create", drive)
    await client.call("VDI.db_forget", vdi)
    assert pool.row("VDI", vdi) is None
    assert (pool.row("VBD", cd)["empty"], pool.row("VBD", cd)["VDI"]) == (True, NULL)


# ---- contents


NEEDS_A_FEATURE: dict[str, list[Any]] = {
    "VDI.resize_online": ["vdi", 1 << 30],
    "VDI.revert": ["vdi"],
    "VDI.set_on_boot": ["vdi", "reset"],
    "VDI.enable_cbt": ["vdi"],
    "VDI.disable_cbt": ["vdi"],
    "VDI.data_destroy": ["vdi"],
    "VDI.list_changed_blocks": ["OpaqueRef:x", "vdi"],
    "VDI.generate_config": ["OpaqueRef:x", "vdi"],
}


async def test_what_the_driver_cannot_do_is_not_supported(pool: Pool, client: Client, disk: str) -> None:
    for message, arguments in NEEDS_A_FEATURE.items():
        given = [disk if value == "vdi" else value for value in arguments]
        assert await client.refusal(message, *given) == ["SR_OPERATION_NOT_SUPPORTED", sr_of(pool)]
        unknown = ["OpaqueRef:y" if value == "vdi" else value for value in arguments]
        assert await client.refusal(message, *unknown) == ["HANDLE_INVALID", "VDI", "OpaqueRef:y"]


async def test_databases_are_in_disks_for_them(pool: Pool, client: Client, disk: str) -> None:
    assert await client.refusal("VDI.open_database", disk) == ["VDI_INCOMPATIBLE_TYPE", disk, "User"]
    assert await client.call("VDI.read_database_pool_uuid", disk) == ""
    assert await client.refusal("VDI.force_unlock", disk) == ["MESSAGE_DEPRECATED"]
    assert await client.refusal("VDI.pool_migrate", disk, sr_of(pool), {}) == ["VDI_NEEDS_VM_FOR_MIGRATE", disk]


async def test_disks_are_served_where_a_network_is_for_it(pool: Pool, client: Client, disk: str) -> None:
    assert await client.call("VDI.get_nbd_info", disk) == []
    await pool.write(SetAdd(cls="network", ref=pool.ref("network", "network"), field="purpose", value="nbd"))
    [pif, *others] = [ref for ref, row in pool.store.rows("PIF").items() if row["host"] == pool.host_ref(0)]
    assert not others
    at = {"IP": "10.0.0.1", "IPv6": ["fd00::1", ""], "currently_attached": True}
    gone = [SetDrop(cls="network", ref=pool.row("PIF", pif)["network"], field="purpose", value="nbd")]
    away = [Update(cls="PIF", ref=ref, fields={"currently_attached": False}) for ref in pool.store.rows("PIF")]
    await pool.write(*away, Update(cls="PIF", ref=pif, fields=at))
    certificate = await client.call("host.get_server_certificate", pool.host_ref(0))
    first, second = await client.call("VDI.get_nbd_info", disk)
    assert first == {
        "exportname": f"/{pool.row('VDI', disk)['uuid']}?session_id={client.session}",
        "address": "10.0.0.1",
        "port": 10809,
        "cert": certificate,
        "subject": first["subject"],
    }
    assert first["subject"]
    assert second["address"] == "fd00::1"
    await pool.write(*gone)
    assert await client.call("VDI.get_nbd_info", disk) == []


async def test_a_copy_goes_where_there_is_room(pool: Pool, client: Client, disk: str) -> None:
    assert await client.refusal("VDI.copy", disk, "OpaqueRef:x") == ["HANDLE_INVALID", "SR", "OpaqueRef:x"]
    small = await client.call("VDI.create", records.vdi(sr_of(pool), 1))
    size = str(pool.row("VDI", disk)["virtual_size"])
    assert await client.refusal("VDI.copy", disk, NULL, NULL, small) == ["VDI_TOO_SMALL", small, size]
    await pool.write(Update(cls="VDI", ref=small, fields={"read_only": True}))
    assert await client.refusal("VDI.copy", disk, NULL, NULL, small) == ["VDI_READONLY", small]


async def test_the_disk_with_the_pools_metadata_is_found_by_its_uuid(pool: Pool, client: Client) -> None:
    record = records.vdi(sr_of(pool), name_label="Pool Metadata Backup")
    first = pool.row("VDI", await client.call("VDI.create", record))["uuid"]
    digest = hashlib.md5(pool.row("SR", sr_of(pool))["uuid"].encode()).hexdigest()
    assert first.replace("-", "") == digest
    await client.call("VDI.destroy", await client.call("VDI.get_by_uuid", first))
    assert pool.row("VDI", await client.call("VDI.create", record))["uuid"] == first
