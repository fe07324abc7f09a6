"""What VMs are asked, and what of it can be told without their guests; UEFI variables; snapshots that are imported."""

from __future__ import annotations

import pytest

from shared.contracts.db import Create, MapPut, Update
from tests.api.core import records
from tests.api.harness import Client, Pool

NULL = "OpaqueRef:NULL"
BAD = "OpaqueRef:x"
AGENT = "guest-agent-operation"


@pytest.fixture
async def running(pool: Pool, client: Client) -> str:
    vm = await pool.vm(client)
    await client.call("VM.start", vm, False, False)
    return vm


async def agent_says(pool: Pool, vm: str, key: str, value: str) -> None:
    metrics = Create(cls="VM_guest_metrics", ref="OpaqueRef:gm", fields={"uuid": "gm", "other": {key: value}})
    await pool.write(metrics, Update(cls="VM", ref=vm, fields={"guest_metrics": "OpaqueRef:gm"}))


async def test_calls_to_the_agent_name_what_is_missing(pool: Pool, client: Client, running: str) -> None:
    async def refusal(plugin: str, function: str, **arguments: str) -> list[str]:
        return await client.refusal("VM.call_plugin", running, plugin, function, arguments)

    assert await refusal("frob", "x") == ["XENAPI_MISSING_PLUGIN", "frob"]
    assert (await refusal(AGENT, "x"))[:2] == ["XENAPI_PLUGIN_FAILURE", "failed to find fn"]
    assert (await refusal(AGENT, "request-rdp-on"))[:2] == ["XENAPI_PLUGIN_FAILURE", "failed to execute fn"]
    assert await refusal(AGENT, "run-script") == ["FEATURE_RESTRICTED"]
    pool_ref, key = next(iter(pool.store.rows("pool"))), "allow_guest_agent_run_script"
    await pool.write(MapPut(cls="pool", ref=pool_ref, field="other_config", key=key, value="true"))
    missing = await refusal(AGENT, "run-script", username="u", password="p")
    assert missing == ["XENAPI_PLUGIN_FAILURE", "missing argument", "", "Argument script is required."]
    await agent_says(pool, running, "feature-ts2", "1")
    assert (await refusal(AGENT, "request-rdp-on"))[0] == "NOT_IMPLEMENTED"


async def test_a_guest_without_the_driver_is_not_prepared(client: Client, running: str) -> None:
    assert await client.refusal("VM.sysprep", running, "", -1.0) == ["INVALID_VALUE", "timeout", "-1."]
    large = await client.refusal("VM.sysprep", running, "x" * 40000, 1.0)
    assert large == ["SYSPREP", running, "unattend.xml file too large"]
    assert (await client.refusal("VM.sysprep", running, "", 1.0))[:2] == ["SYSPREP", running]


async def test_what_a_halted_vm_cannot_do(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    for message, arguments in (
        ("VM.set_VCPUs_number_live", [2]),
        ("VM.add_to_VCPUs_params_live", ["cap", "5"]),
        ("VM.wait_memory_target_live", []),
        ("VM.call_plugin", [AGENT, "x", {}]),
        ("VM.s3_suspend", []),
    ):
        assert await client.refusal(message, vm, *arguments) == ["VM_BAD_POWER_STATE", vm, "running", "halted"]
        assert await client.refusal(message, BAD, *arguments) == ["HANDLE_INVALID", "VM", BAD]
    refused = ["VM_BAD_POWER_STATE", vm, "Running", "Halted"]
    assert await client.refusal("VM.restart_device_models", vm) == refused
    assert await client.refusal("VM.csvm", vm) == ["HANDLE_INVALID", "VDI", NULL]
    assert await client.refusal("VM.retrieve_wlb_recommendations", vm) == ["WLB_NOT_INITIALIZED"]


async def test_a_running_vm_has_its_memory_and_says_what_it_was_started_on(
    pool: Pool, client: Client, running: str
) -> None:
    await client.call("VM.wait_memory_target_live", running)
    assert pool.row("VM", running)["last_boot_CPU_flags"] == {"vendor": "fake", "features": ""}


async def test_a_paused_vms_checkpoint_is_without_memory(pool: Pool, client: Client, running: str) -> None:
    assert (await client.refusal("VM.checkpoint", running, "c"))[0] == "NOT_IMPLEMENTED"
    await client.call("VM.pause", running)
    taken = await client.call("VM.checkpoint", running, "c")
    row = pool.row("VM", taken)
    assert (row["snapshot_of"], row["power_state"], row["name_label"]) == (running, "Halted", "c")


async def test_an_imported_vm_becomes_the_snapshot_that_it_was(pool: Pool, client: Client) -> None:
    vm, other = await pool.vm(client, "snap"), await pool.vm(client, "vm")
    await client.call("VM.update_snapshot_metadata", vm, other, "20200101T00:00:00Z", "t")
    row = pool.row("VM", vm)
    assert (row["is_a_snapshot"], row["snapshot_time"], row["transportable_snapshot_id"]) == (
        True,
        "20200101T00:00:00Z",
        "t",
    )
    assert pool.row("VM", other)["snapshots"] == [vm]
    assert "start" not in row["allowed_operations"]


async def test_certificates_are_updated_at_the_next_boot_when_there_are_new_ones(pool: Pool, client: Client) -> None:
    vm, ask = await pool.vm(client), "VM.update_secureboot_certificates_on_boot"
    assert (await client.refusal(ask, vm, True))[0] == "OPERATION_NOT_ALLOWED"
    await pool.write(Update(cls="VM", ref=vm, fields={"secureboot_certificates_state": "update_available"}))
    for mark, state in ((False, "update_available"), (True, "update_on_boot"), (True, "update_on_boot")):
        await client.call(ask, vm, mark)
        assert pool.row("VM", vm)["secureboot_certificates_state"] == state
    await client.call("VM.set_NVRAM_EFI_variables", vm, "AAAA", "no")
    assert pool.row("VM", vm)["secureboot_certificates_state"] == "update_on_boot"
    await client.call("VM.set_NVRAM_EFI_variables", vm, "BBBB", "yes")
    row = pool.row("VM", vm)
    assert (row["secureboot_certificates_state"], row["NVRAM"]["EFI-variables"]) == ("ok", "BBBB")


async def test_readiness_for_secure_boot_shows_in_the_vms_settings(pool: Pool, client: Client) -> None:
    vm, ask = await pool.vm(client), "VM.get_secureboot_readiness"
    assert await client.call(ask, vm) == "not_supported"
    await client.call("VM.set_HVM_boot_params", vm, {"firmware": "frob"})
    assert await client.refusal(ask, vm) == ["INVALID_VALUE", "HVM-boot-params['firmware']", "frob"]
    await client.call("VM.set_HVM_boot_params", vm, {"firmware": "uefi"})
    assert await client.call(ask, vm) == "disabled"
    await client.call("VM.set_platform", vm, {"secureboot": "true"})
    assert await client.call(ask, vm) == "first_boot"
    await client.call("VM.set_NVRAM", vm, {"EFI-variables": "AAAA"})
    assert (await client.refusal(ask, vm))[0] == "NOT_IMPLEMENTED"


async def test_a_vm_of_an_appliance_is_recovered_with_it(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client)
    group = await client.call("VM_appliance.create", {"name_label": "a", "name_description": ""})
    await client.call("VM.set_appliance", vm, group)
    refused = ["VM_IS_PART_OF_AN_APPLIANCE", vm, group]
    assert await client.refusal("VM.recover", vm, client.session, False) == refused


# ---- disks and interfaces


async def test_drives_are_checked_before_what_goes_into_them(pool: Pool, client: Client) -> None:
    vm, sr = await pool.vm(client), pool.ref("SR", "storage")
    vdi = await client.call("VDI.create", records.vdi(sr))
    vbd = await client.call("VBD.create", records.vbd(vm, vdi))
    assert await client.refusal("VBD.insert", BAD, BAD) == ["HANDLE_INVALID", "VBD", BAD]
    halted = ["VM_BAD_POWER_STATE", vm, "running", "halted"]
    assert await client.refusal("VBD.unplug_force_no_safety_check", vbd) == halted
    await client.call("VM.start", vm, False, False)
    for message, arguments in (("VBD.pause", []), ("VBD.unpause", [""])):
        assert await client.refusal(message, vbd, *arguments) == ["SR_OPERATION_NOT_SUPPORTED", sr]


async def test_a_vif_carries_vlans_where_there_are_none(pool: Pool, client: Client) -> None:
    vm, network = await pool.vm(client), pool.ref("network", "network")
    vif = await client.call("VIF.create", records.vif(vm, network))
    assert await client.refusal("VIF.add_trunks", vif, 4095) == ["VLAN_TAG_INVALID", "4095"]
    await client.call("VIF.add_trunks", vif, 5)
    await client.call("VIF.add_trunks", vif, 5)
    assert pool.row("VIF", vif)["trunks"] == [5]
    pif = pool.row("network", network)["PIFs"][0]
    await pool.write(Update(cls="PIF", ref=pif, fields={"VLAN": 7}))
    for message, arguments in (("VIF.set_trunks", [[1]]), ("VIF.add_trunks", [1]), ("VIF.move", [network])):
        refusal = await client.refusal(message, vif, *arguments)
        assert refusal == ["NETWORK_INCOMPATIBLE_WITH_TRUNKS", network]
    await client.call("VIF.remove_trunks", vif, 5)
    assert pool.row("VIF", vif)["trunks"] == []


async def test_a_guest_is_given_an_address_that_its_interface_may_use(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    vif = await client.call("VIF.create", records.vif(vm, pool.ref("network", "network"), locking_mode="locked"))
    ask = ["VIF.configure_ipv4", vif, "Static", "10.0.0.5/24", ""]
    assert await client.refusal(*ask) == ["ADDRESS_VIOLATES_LOCKING_CONSTRAINT", "10.0.0.5/24"]
    await client.call("VIF.add_ipv4_allowed", vif, "10.0.0.5")
    assert await client.refusal(*ask) == ["VM_LACKS_FEATURE", vm]
    await agent_says(pool, vm, "feature-static-ip-setting", "1")
    await client.call(*ask)
    row = pool.row("VIF", vif)
    assert (row["ipv4_configuration_mode"], row["ipv4_addresses"]) == ("Static", ["10.0.0.5/24"])
