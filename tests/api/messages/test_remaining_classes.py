"""Classes whose services are not there: what the rows say is done or refused, then that it is not built."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.db import Create, Update
from shared.datamodel import model
from tests.api.harness import Client, Pool

NOWHERE = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"
NULL = "OpaqueRef:NULL"


@pytest.mark.parametrize(
    ("message", "cls", "rest"),
    [
        ("pool_update.introduce", "VDI", ()),
        ("pool_update.destroy", "pool_update", ()),
        ("pool_patch.destroy", "pool_patch", ()),
        ("pool_patch.clean", "pool_patch", ()),
        ("host_patch.destroy", "host_patch", ()),
        ("host_patch.apply", "host_patch", ()),
        ("crashdump.destroy", "crashdump", ()),
        ("host_crashdump.destroy", "host_crashdump", ()),
        ("Host_driver.select", "Host_driver", (NOWHERE,)),
        ("Driver_variant.select", "Driver_variant", ()),
        ("DR_task.destroy", "DR_task", ()),
        ("Cluster.pool_resync", "Cluster", ()),
        ("Cluster_host.create", "Cluster", (NOWHERE, NOWHERE)),
        ("Cluster_host.forget", "Cluster_host", ()),
        ("PCI.disable_dom0_access", "PCI", ()),
        ("PGPU.disable_dom0_access", "PGPU", ()),
        ("PGPU.set_GPU_group", "GPU_group", (NOWHERE,)),
        ("PVS_site.forget", "PVS_site", ()),
        ("PVS_server.forget", "PVS_server", ()),
        ("SDN_controller.forget", "SDN_controller", ()),
        ("network_sriov.get_remaining_capacity", "network_sriov", ()),
        ("VM_appliance.assert_can_be_recovered", "VM_appliance", (NULL,)),
    ],
)
async def test_what_is_not_there_is_named(client: Client, message: str, cls: str, rest: tuple[Any, ...]) -> None:
    assert await client.refusal(message, NOWHERE, *rest) == ["HANDLE_INVALID", cls, NOWHERE]


# ---- what needs Open vSwitch


async def test_bridges_have_no_proxies_and_no_controller(client: Client) -> None:
    inactive = ["OPENVSWITCH_NOT_ACTIVE"]
    assert await client.refusal("PVS_site.introduce", "n", "d", "u") == inactive
    assert await client.refusal("PVS_server.introduce", ["1.2.3.4"], 1, 2, NOWHERE) == inactive
    assert await client.refusal("PVS_proxy.create", NOWHERE, NOWHERE) == ["HANDLE_INVALID", "VIF", NOWHERE]
    assert (await client.refusal("SDN_controller.introduce", "ssl", "1.2.3.4", 6640))[0] == "OPERATION_NOT_ALLOWED"
    assert (await client.refusal("pool.set_vswitch_controller", "1.2.3.4"))[0] == "OPERATION_NOT_ALLOWED"
    assert await client.refusal("PVS_cache_storage.create", {}) == ["INVALID_VALUE", "host", NULL]


async def test_with_open_vswitch_pvs_sites_and_servers_are_rows(pool: Pool, client: Client) -> None:
    master = pool.host_ref(0)
    version = {**pool.row("host", master)["software_version"], "network_backend": "openvswitch"}
    await pool.write(Update(cls="host", ref=master, fields={"software_version": version}))
    site = await client.call("PVS_site.introduce", "n", "d", "u")
    ports = ("first_port", "last_port")

    async def refusal(addresses: list[str], first: int, last: int) -> list[str]:
        return await client.refusal("PVS_server.introduce", addresses, first, last, site)

    assert await refusal(["x"], 1, 2) == ["INVALID_IP_ADDRESS_SPECIFIED", "addresses"]
    assert await refusal(["1.2.3.4"], 0, 2) == ["VALUE_NOT_SUPPORTED", ports[0], "0", "Port out of range"]
    assert (await refusal(["1.2.3.4"], 3, 2))[:3] == ["VALUE_NOT_SUPPORTED", ports[1], "2"]
    server = await client.call("PVS_server.introduce", ["1.2.3.4"], 1, 2, site)
    assert await refusal(["::1", "1.2.3.4"], 1, 2) == ["PVS_SERVER_ADDRESS_IN_USE", "1.2.3.4"]
    assert await client.refusal("PVS_site.forget", site) == ["PVS_SITE_CONTAINS_SERVERS", server]
    await client.call("PVS_server.forget", server)
    await client.call("PVS_site.set_PVS_uuid", site, "other")
    assert pool.row("PVS_site", site)["PVS_uuid"] == "other"
    await client.call("PVS_site.forget", site)
    assert pool.row("PVS_site", site) is None


# ---- clusters


async def test_a_cluster_needs_an_interface_that_stays(pool: Pool, client: Client) -> None:
    [pif] = [ref for ref, row in pool.store.rows("PIF").items() if row["host"] == pool.host_ref(0)][:1] or [
        await _pif(pool)
    ]
    fields = {"disallow_unplug": False, "currently_attached": False, "IP": ""}
    await pool.write(Update(cls="PIF", ref=pif, fields=fields))

    async def refusal(stack: str = "corosync", *timeouts: float) -> list[str]:
        return await client.refusal("Cluster.create", pif, stack, True, *timeouts)

    assert await client.refusal("Cluster.create", NOWHERE, "corosync", True) == ["HANDLE_INVALID", "PIF", NOWHERE]
    assert await refusal("other") == ["INVALID_CLUSTER_STACK", "other"]
    assert await refusal("corosync", 0.5) == ["INVALID_VALUE", "token_timeout", "0.5"]
    assert await refusal("corosync", 20.0, 0.0) == ["INVALID_VALUE", "token_timeout_coefficient", "0."]
    assert await refusal() == ["PIF_ALLOWS_UNPLUG", pif]
    await pool.write(Update(cls="PIF", ref=pif, fields={"disallow_unplug": True}))
    assert await refusal() == ["REQUIRED_PIF_IS_UNPLUGGED", pif]
    await pool.write(Update(cls="PIF", ref=pif, fields={"currently_attached": True}))
    assert await refusal() == ["PIF_HAS_NO_NETWORK_CONFIGURATION", pif]
    await pool.write(Update(cls="PIF", ref=pif, fields={"IP": "10.0.0.1"}))
    assert await refusal() == ["NOT_IMPLEMENTED", "Cluster.create"]


async def _pif(pool: Pool) -> str:
    [network] = list(pool.store.rows("network"))[:1]
    fields = {"host": pool.host_ref(0), "network": network, "device": "eth0"}
    await pool.write(Create(cls="PIF", ref="OpaqueRef:pif", fields=fields))
    return "OpaqueRef:pif"


async def test_hosts_of_a_cluster_are_counted(pool: Pool, client: Client) -> None:
    cluster, first, second = "OpaqueRef:cluster", "OpaqueRef:one", "OpaqueRef:two"
    await pool.write(
        Create(cls="Cluster", ref=cluster, fields={}),
        Create(cls="Cluster_host", ref=first, fields={"cluster": cluster, "host": pool.host_ref(0), "enabled": True}),
        Create(cls="Cluster_host", ref=second, fields={"cluster": cluster, "host": pool.host_ref(1)}),
    )
    assert await client.refusal("Cluster.create", NOWHERE, "corosync", True) == ["CLUSTER_ALREADY_EXISTS"]
    assert await client.refusal("Cluster.destroy", cluster) == ["CLUSTER_DOES_NOT_HAVE_ONE_NODE", "2"]
    assert await client.refusal("Cluster_host.destroy", second) == ["CLUSTERING_DISABLED", second]
    assert await client.refusal("Cluster_host.destroy", first) == ["NOT_IMPLEMENTED", "Cluster_host.destroy"]


# ---- recovery


async def test_vms_are_recovered_where_their_srs_are(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    appliance = await client.call("VM_appliance.create", {"name_label": "a", "name_description": ""})
    here = client.session
    await client.call("VM_appliance.assert_can_be_recovered", appliance, here)
    await client.call("VM_appliance.recover", appliance, here, False)
    await client.call("VM.set_appliance", vm, appliance)
    assert await client.call("VM_appliance.get_SRs_required_for_recovery", appliance, here) == []
    assert await client.refusal("VM_appliance.recover", appliance, here, False) == [
        "NOT_IMPLEMENTED",
        "VM_appliance.recover",
    ]
    sr = pool.ref("SR", "storage")
    unplugged = [Update(cls="PBD", ref=pbd, fields={"currently_attached": False}) for pbd in pool.row("SR", sr)["PBDs"]]
    await pool.write(*unplugged)
    needed = [sr] if pool.row("VM", vm)["VBDs"] else []
    assert await client.call("VM_appliance.get_SRs_required_for_recovery", appliance, here) == needed
    assert await client.call("VM.get_SRs_required_for_recovery", vm, here) == needed
    if needed:
        refusal = await client.refusal("VM_appliance.assert_can_be_recovered", appliance, here)
        assert refusal == ["VM_REQUIRES_SR", vm, sr]
    assert (await client.refusal("VM_appliance.recover", appliance, NOWHERE, False))[0] == "SESSION_INVALID"


async def test_disaster_recovery_needs_srs_that_hold_databases(client: Client) -> None:
    assert (await client.refusal("DR_task.create", "fake", {}, []))[0] == "OPERATION_NOT_ALLOWED"


# ---- dumps, updates, drivers


async def test_a_dump_goes_even_if_its_disk_is_gone(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await pool.write(Create(cls="crashdump", ref="OpaqueRef:dump", fields={"VM": vm, "VDI": NOWHERE}))
    await client.call("crashdump.destroy", "OpaqueRef:dump")
    assert pool.row("crashdump", "OpaqueRef:dump") is None


async def test_an_update_goes_with_its_patch_unless_a_host_has_it(pool: Pool, client: Client) -> None:
    update, patch = "OpaqueRef:update", "OpaqueRef:patch"
    await pool.write(
        Create(cls="pool_update", ref=update, fields={"name_label": "u"}),
        Create(cls="pool_patch", ref=patch, fields={"name_label": "u", "pool_update": update}),
        Update(cls="host", ref=pool.host_ref(0), fields={"updates": [update]}),
    )
    assert await client.refusal("pool_patch.destroy", patch) == ["UPDATE_IS_APPLIED"]
    assert await client.refusal("pool_update.pool_apply", update) == ["NOT_IMPLEMENTED", "pool_update.pool_apply"]
    await pool.write(Update(cls="host", ref=pool.host_ref(0), fields={"updates": []}))
    await client.call("pool_update.destroy", update)
    assert pool.row("pool_patch", patch) is None


async def test_a_host_has_no_updates_of_other_versions(pool: Pool, client: Client) -> None:
    host, update = pool.host_ref(0), "OpaqueRef:update"
    applied = {"name_label": "p", "host": host, "applied": True, "timestamp_applied": "19700101T00:00:00Z"}
    await pool.write(
        Create(cls="pool_update", ref=update, fields={"name_label": "u"}),
        Create(cls="pool_patch", ref="OpaqueRef:patch", fields={"name_label": "u", "pool_update": update}),
        Create(cls="pool_patch", ref="OpaqueRef:old", fields={"name_label": "o", "pool_update": NULL}),
        Create(cls="host_patch", ref="OpaqueRef:1", fields={**applied, "pool_patch": "OpaqueRef:old"}),
        Update(cls="host", ref=host, fields={"updates": [update]}),
    )
    await client.call("pool_update.resync_host", host)
    assert pool.row("host", host)["updates"] == []
    assert pool.row("pool_patch", "OpaqueRef:old") is pool.row("host_patch", "OpaqueRef:1") is None
    assert pool.row("pool_update", update) is not None
    await pool.write(Create(cls="host_patch", ref="OpaqueRef:2", fields={**applied, "pool_patch": "OpaqueRef:patch"}))
    await client.call("pool_update.resync_host", host)
    assert pool.row("pool_update", update) is pool.row("pool_patch", "OpaqueRef:patch") is None


async def test_a_driver_is_chosen_for_hardware_that_is_there(pool: Pool, client: Client) -> None:
    driver, variant = "OpaqueRef:driver", "OpaqueRef:variant"
    texts = {"name": "d", "friendly_name": "", "type": "", "description": "", "info": ""}
    chosen = {"active_variant": NULL, "selected_variant": NULL}
    await pool.write(
        Create(cls="Host_driver", ref=driver, fields={**texts, **chosen, "host": pool.host_ref(0)}),
        Create(
            cls="Driver_variant",
            ref=variant,
            fields={
                "name": "v",
                "driver": driver,
                "version": "1",
                "hardware_present": False,
                "priority": 1.0,
                "status": "",
            },
        ),
    )
    assert await client.refusal("Host_driver.select", driver, NOWHERE) == ["INVALID_VALUE", "variant", NOWHERE]
    assert await client.refusal("Host_driver.select", driver, variant) == ["HOST_DRIVER_NO_HARDWARE", variant]
    assert await client.refusal("Driver_variant.select", variant) == ["HOST_DRIVER_NO_HARDWARE", variant]
    assert await client.refusal("Host_driver.deselect", driver) == ["NOT_IMPLEMENTED", "Host_driver.deselect"]
    await client.call("Host_driver.rescan", pool.host_ref(0))
    assert pool.row("Host_driver", driver) is pool.row("Driver_variant", variant) is None


async def test_virtual_functions_that_nobody_has_are_left(pool: Pool, client: Client) -> None:
    pif = await _pif(pool)
    card, sriov = "OpaqueRef:card", "OpaqueRef:sriov"
    vm = await pool.vm(client)
    functions = [
        Create(cls="PCI", ref=f"OpaqueRef:vf{number}", fields={"host": pool.host_ref(0), "physical_function": card})
        for number in range(3)
    ]
    await pool.write(
        Create(cls="PCI", ref=card, fields={"host": pool.host_ref(0)}),
        *functions,
        Update(cls="PIF", ref=pif, fields={"PCI": card}),
        Create(cls="network_sriov", ref=sriov, fields={"physical_PIF": pif, "logical_PIF": NULL}),
        Update(cls="PCI", ref="OpaqueRef:vf0", fields={"attached_VMs": [vm]}),
        Update(cls="PCI", ref="OpaqueRef:vf1", fields={"scheduled_to_be_attached_to": vm}),
    )
    assert await client.call("network_sriov.get_remaining_capacity", sriov) == 1


async def test_nobody_makes_consoles(client: Client) -> None:
    assert await client.refusal("console.create", {"other_config": {}}) == ["NOT_IMPLEMENTED", "Console.create"]
    assert await client.refusal("console.destroy", NOWHERE) == ["NOT_IMPLEMENTED", "Console.destroy"]


# ---- repositories, diagnostics


async def test_another_pools_updates_are_a_repository(pool: Pool, client: Client) -> None:
    url = "https://10.0.0.1/repository/enabled"
    for wrong in ("http://10.0.0.1/repository/enabled", "https://host/repository/enabled", "https://10.0.0.1/"):
        refusal = await client.refusal("Repository.introduce_remote_pool", "r", "", wrong, "pem")
        assert refusal == ["INVALID_BASE_URL", wrong]
    ref = await client.call("Repository.introduce_remote_pool", "r", "", url, "pem")
    row = pool.row("Repository", ref)
    assert (row["origin"], row["certificate"], row["update"]) == ("remote_pool", "pem", True)
    assert await client.refusal("Repository.introduce_remote_pool", "s", "", url, "pem") == [
        "REPOSITORY_ALREADY_EXISTS",
        ref,
    ]


async def test_figures_for_developers(pool: Pool, client: Client) -> None:
    stats = await client.call("Diagnostics.gc_stats", pool.host_ref(0))
    assert int(stats["resident_bytes"]) > 0
    await client.call("Diagnostics.gc_compact", pool.host_ref(0))
    after = await client.call("Diagnostics.gc_stats", pool.host_ref(0))
    assert int(after["generation_2_collections"]) > int(stats["generation_2_collections"])
    figures = await client.call("Diagnostics.db_stats")
    assert set(figures) == {"n", "avgtime", "min", "max"}
    assert int(figures["n"]) > 0
    assert float(figures["min"]) <= float(figures["avgtime"]) <= float(figures["max"])
    assert await client.refusal("Diagnostics.gc_stats", NOWHERE) == ["HOST_OFFLINE", NOWHERE]


async def test_snapshots_by_schedule_are_a_plug_ins_work(client: Client) -> None:
    names = {"name_label": "s", "name_description": ""}
    schedule = await client.call("VMSS.create", {**names, "type": "snapshot", "frequency": "daily"})
    assert await client.refusal("VMSS.snapshot_now", schedule) == ["XENAPI_MISSING_PLUGIN", "vmss"]


def test_records_that_are_no_rows_have_no_messages() -> None:
    for cls in ("sr_stat", "probe_result"):
        assert not [name for name in model.messages if name.startswith(f"{cls}.")]
