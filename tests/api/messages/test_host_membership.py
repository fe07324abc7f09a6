"""Hosts that come into the pool's rows and leave them, and what only idle hosts can do."""

from __future__ import annotations

import base64
import io
import tarfile
from typing import Any

import pytest

from services.api.decisions.host_removal import removal
from services.api.decisions.rows import NULL
from shared.contracts.db import Create, Delete, Update
from tests.api.core import records
from tests.api.harness import Client, Pool


def the_pool(pool: Pool) -> str:
    return next(iter(pool.store.rows("pool")))


async def lose(pool: Pool, number: int) -> str:
    """The host goes, and is seen to be gone; its reference."""
    host = pool.host_ref(number)
    await pool.hosts[number].down()
    await pool.write(Update(cls="host_metrics", ref=pool.row("host", host)["metrics"], fields={"live": False}))
    return host


async def local_sr(pool: Pool, host: str, **fields: Any) -> tuple[str, str]:
    """An SR that only one host reaches, with a disk."""
    sr, pbd, vdi = "OpaqueRef:sr", "OpaqueRef:pbd", "OpaqueRef:vdi"
    row = {"name_label": "local", "type": "fake", "content_type": "user", "shared": False, **fields}
    await pool.write(
        Create(cls="SR", ref=sr, fields=row),
        Create(cls="PBD", ref=pbd, fields={"host": host, "SR": sr, "device_config": {}}),
        Create(cls="VDI", ref=vdi, fields={"SR": sr, "name_label": "disk", "type": "user", "location": "x"}),
    )
    return sr, vdi


async def test_a_dead_host_is_forgotten_with_all_that_was_only_there(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    sr, vdi = await local_sr(pool, host)
    vm = await pool.vm(client, affinity=host)
    await pool.write(Update(cls="pool", ref=the_pool(pool), fields={"default_SR": sr}))
    await lose(pool, 1)
    row = pool.row("host", host)
    gone = {cls: list(row[field]) for cls, field in (("PIF", "PIFs"), ("PBD", "PBDs"), ("host_cpu", "host_CPUs"))}
    gone |= {"VM": [row["control_domain"]], "host_metrics": [row["metrics"]], "SR": [sr], "VDI": [vdi]}
    await client.call("host.destroy", host)
    assert pool.row("host", host) is None
    assert all(pool.row(cls, ref) is None for cls, refs in gone.items() for ref in refs)
    assert pool.row("VM", vm)["affinity"] == NULL
    assert pool.row("pool", the_pool(pool))["default_SR"] == NULL
    assert pool.ref("SR", "storage")
    assert len(pool.store.rows("PIF")) == len(pool.row("host", pool.host_ref(0))["PIFs"])


async def test_who_cannot_be_forgotten(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.start_on", vm, pool.host_ref(1), False, False)
    assert await client.refusal("host.destroy", pool.host_ref(1)) == ["HOST_IS_LIVE", pool.host_ref(1)]
    host = await lose(pool, 1)
    assert await client.refusal("host.destroy", host) == ["HOST_HAS_RESIDENT_VMS", host]
    master = await lose(pool, 0)
    assert await client.refusal("host.destroy", master) == ["HOST_CANNOT_DESTROY_SELF", master]
    await pool.write(Update(cls="pool", ref=the_pool(pool), fields={"ha_enabled": True}))
    assert await client.refusal("host.destroy", host) == ["HA_IS_ENABLED"]


async def test_disks_of_a_host_that_is_declared_dead_are_free_for_others(pool: Pool, client: Client) -> None:
    pool.disks.open["disk"] = pool.hosts[1].uuid
    host = await lose(pool, 1)
    await client.call("host.declare_dead", host)
    assert pool.disks.open == {}


async def test_drives_stay_when_their_disc_goes(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    _, vdi = await local_sr(pool, host)
    vm = await pool.vm(client)
    for ref, kind, device in (("OpaqueRef:cd", "CD", "3"), ("OpaqueRef:hd", "Disk", "0")):
        fields = {"VM": vm, "VDI": vdi, "type": kind, "userdevice": device, "mode": "RO", "empty": False}
        await pool.write(Create(cls="VBD", ref=ref, fields=fields))
    changes = removal(pool.store, host)
    assert Update(cls="VBD", ref="OpaqueRef:cd", fields={"empty": True, "VDI": NULL}) in changes
    assert Delete(cls="VBD", ref="OpaqueRef:hd") in changes
    deleted = [(change.cls, change.ref) for change in changes if isinstance(change, Delete)]
    assert len(deleted) == len(set(deleted))


async def test_a_joining_host_gets_rows(pool: Pool, client: Client) -> None:
    uuid = "00000000-0000-4000-8000-000000000001"
    ref = await client.call("host.create", uuid, "new", "", "new", "127.0.0.99")
    row = pool.row("host", ref)
    assert (row["uuid"], row["hostname"], row["enabled"]) == (uuid, "new", False)
    assert row["API_version_minor"] == pool.row("host", pool.host_ref(0))["API_version_minor"]
    assert not pool.row("host_metrics", row["metrics"])["live"]
    assert (await client.refusal("host.create", uuid, "new", "", "new", ""))[0] == "DB_UNIQUENESS_CONSTRAINT_VIOLATION"


async def test_who_says_hello(pool: Pool, client: Client) -> None:
    assert await client.call("pool.hello", "nobody", "127.0.0.1") == "unknown_host"
    assert await client.call("pool.hello", pool.hosts[1].uuid, "127.0.0.1") == "cannot_talk_back"
    await pool.start_api(1)
    assert await client.call("pool.hello", pool.hosts[1].uuid, "127.0.0.77") == "ok"
    assert pool.row("host", pool.host_ref(1))["address"] == "127.0.0.77"


# ---- caching on a local SR


async def test_caching_needs_an_idle_host_and_a_driver_that_can(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    sr, _ = await local_sr(pool, host)
    enable = "host.enable_local_storage_caching"
    assert await client.refusal(enable, host, sr) == ["HOST_NOT_DISABLED"]
    await client.call("host.disable", host)
    shared = pool.ref("SR", "storage")
    assert await client.refusal(enable, host, shared) == ["SR_OPERATION_NOT_SUPPORTED", shared]
    assert await client.refusal(enable, host, sr) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    code, *failed = await client.refusal("pool.enable_local_storage_caching", the_pool(pool))
    assert code == "HOSTS_FAILED_TO_ENABLE_CACHING"
    assert sorted(failed) == sorted(pool.store.rows("host"))
    [driver] = [ref for ref, row in pool.store.rows("SM").items() if row["type"] == "fake"]
    await pool.write(Update(cls="SM", ref=driver, fields={"features": {"SR_SUPPORTS_LOCAL_CACHING": 1}}))
    await client.call(enable, host, sr)
    assert pool.row("host", host)["local_cache_sr"] == sr
    assert pool.row("SR", sr)["local_cache_enabled"]
    coordinator = pool.host_ref(0)
    assert await client.refusal("host.enable_local_storage_caching", coordinator, sr) == ["HOST_NOT_DISABLED"]
    refusal = await client.refusal("pool.disable_local_storage_caching", the_pool(pool))
    assert refusal == ["HOSTS_FAILED_TO_DISABLE_CACHING", coordinator]
    assert pool.row("host", host)["local_cache_sr"] == NULL
    assert not pool.row("SR", sr)["local_cache_enabled"]


# ---- editions, guests, balancing


async def test_there_is_one_edition(pool: Pool, client: Client) -> None:
    host = pool.host_ref(0)
    await client.call("host.apply_edition", host, "free/libre")
    await client.call("pool.apply_edition", the_pool(pool), "")
    assert pool.row("host", host)["edition"] == "free/libre"
    assert await client.refusal("host.apply_edition", host, "frob") == ["INVALID_EDITION", "frob"]
    assert await client.refusal("host.license_add", host, "x") == ["LICENSE_PROCESSING_ERROR"]
    await client.call("host.license_remove", host)


async def test_settings_that_guest_agents_read(pool: Pool, client: Client) -> None:
    ref = the_pool(pool)
    add = "pool.add_to_guest_agent_config"
    await client.call(add, ref, "auto_update_enabled", "true")
    assert pool.row("pool", ref)["guest_agent_config"] == {"auto_update_enabled": "true"}
    assert (await client.refusal(add, ref, "auto_update_enabled", "false"))[0] == "MAP_DUPLICATE_KEY"
    for key, value in (("auto_update_enabled", "frob"), ("auto_update_url", "ftp://x"), ("frob", "")):
        assert await client.refusal(add, ref, key, value) == ["INVALID_VALUE", "guest_agent_config", f"{key} = {value}"]
    await client.call("pool.remove_from_guest_agent_config", ref, "auto_update_enabled")
    assert pool.row("pool", ref)["guest_agent_config"] == {}


async def test_whether_guests_can_boot_securely(pool: Pool, client: Client) -> None:
    assert await client.call("pool.get_guest_secureboot_readiness", the_pool(pool)) == "not_ready"
    for names, ready in ((("PK", "KEK", "db"), "ready_no_dbx"), (("PK", "KEK", "db", "dbx"), "ready")):
        await pool.write(Update(cls="pool", ref=the_pool(pool), fields={"uefi_certificates": archive(names)}))
        assert await client.call("pool.get_guest_secureboot_readiness", the_pool(pool)) == ready


def archive(names: tuple[str, ...]) -> str:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        for name in names:
            made.addfile(tarfile.TarInfo(f"./{name}.auth"))
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize("url", ["", "a:b", "a:0", "http://a:1/"])
async def test_addresses_that_no_balancing_server_has(pool: Pool, client: Client, url: str) -> None:
    assert await client.refusal("pool.initialize_wlb", url, "", "", "", "") == ["WLB_URL_INVALID", url]


async def test_without_a_balancing_server(pool: Pool, client: Client) -> None:
    assert await client.refusal("pool.initialize_wlb", "127.0.0.1:1", "", "", "", "") == ["WLB_CONNECTION_REFUSED"]
    assert await client.refusal("pool.retrieve_wlb_recommendations") == ["WLB_NOT_INITIALIZED"]


# ---- networks on a host


async def test_networks_are_brought_up_for_programs(pool: Pool, client: Client) -> None:
    host, network = pool.hosts[1], pool.ref("network", "network")
    vm = await pool.vm(client)
    await client.call("VIF.create", records.vif(vm, network))
    host.served.clear()
    await client.call("network.attach", network, pool.host_ref(1))
    await client.call("network.attach_for_vm", pool.host_ref(1), vm)
    await client.call("network.detach_for_vm", pool.host_ref(1), vm)
    assert [name for name in host.served if name.startswith("network.")] == ["network.bridge_up"] * 2
    assert (await client.refusal("network.attach", "OpaqueRef:x", pool.host_ref(1)))[0] == "HANDLE_INVALID"


async def test_where_vms_of_other_pools_could_not_come_in(pool: Pool, client: Client) -> None:
    host, network = pool.host_ref(0), pool.ref("network", "network")
    lonely = await client.call("network.create", {"name_label": "n", "other_config": {}})
    for other, code in ((NULL, "HANDLE_INVALID"), (lonely, "HOST_CANNOT_ATTACH_NETWORK"), (network, "NOT_IMPLEMENTED")):
        assert (await client.refusal("host.migrate_receive", host, other, {}))[0] == code
