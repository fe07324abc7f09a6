"""Settings of VMs, VIFs, hosts and the pool: what is written, and what is refused because nobody would follow it."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.db import Delete, Update
from tests.api.core import records
from tests.api.harness import Client, Pool, error_of

NULL = "OpaqueRef:NULL"


def the_pool(pool: Pool) -> str:
    return next(iter(pool.store.rows("pool")))


async def vif(pool: Pool, client: Client) -> tuple[str, str]:
    vm = await pool.vm(client)
    return vm, str(await client.call("VIF.create", records.vif(vm, pool.ref("network", "network"))))


async def lose(pool: Pool, number: int) -> None:
    """The host goes, and is seen to be gone."""
    await pool.hosts[number].down()
    metrics = pool.row("host", pool.host_ref(number))["metrics"]
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))


# ---- roles


async def test_roles_and_permissions_are_rows(pool: Pool, client: Client) -> None:
    [admin] = await client.call("role.get_by_name_label", "pool-admin")
    assert admin == "OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba"
    names = await client.call("role.get_permissions_name_label", admin)
    assert {"vm.start", "task.destroy/any", "http/connect_console/host_console"} <= set(names)
    [reader] = await client.call("role.get_by_name_label", "read-only")
    assert "vm.start" not in await client.call("role.get_permissions_name_label", reader)
    starters = await client.call("role.get_by_permission_name_label", "vm.start")
    assert admin in starters
    assert reader not in starters


async def test_the_query_of_roles_knows_two_words(pool: Pool, client: Client) -> None:
    roles = await client.call("role.get_all_records_where", "subroles<>[]")
    permissions = await client.call("role.get_all_where", "subroles=[]")
    assert {role["name_label"] for role in roles.values()} >= {"pool-admin", "client-cert"}
    assert set(permissions).isdisjoint(roles)
    assert len(await client.call("role.get_all_where", "nonsense")) == len(roles) + len(permissions)


# ---- secrets and repositories


async def test_a_secret_keeps_the_uuid_it_is_introduced_with(pool: Pool, client: Client) -> None:
    uuid = "00000000-0000-4000-8000-000000000001"
    secret = await client.call("secret.introduce", uuid, "word", {})
    assert await client.call("secret.get_by_uuid", uuid) == secret
    assert (await client.refusal("secret.introduce", uuid, "word", {}))[0] == "INTERNAL_ERROR"
    await client.call("secret.destroy", secret)
    assert pool.row("secret", secret) is None


async def test_repositories_in_use_stay_and_bundles_are_used_alone(pool: Pool, client: Client) -> None:
    one = await client.call("Repository.introduce", "r", "", "http://x/a", "", True)
    assert await client.refusal("Repository.introduce", "r", "", "http://x/b", "", True) == [
        "REPOSITORY_ALREADY_EXISTS",
        one,
    ]
    assert await client.refusal("Repository.introduce", "s", "", "x", "", True) == ["INVALID_BASE_URL", "x"]
    bundle = await client.call("Repository.introduce_bundle", "b", "")
    await client.call("pool.add_repository", the_pool(pool), one)
    assert await client.refusal("Repository.forget", one) == ["REPOSITORY_IS_IN_USE"]
    assert await client.refusal("pool.add_repository", the_pool(pool), bundle) == ["REPO_SHOULD_BE_SINGLE_ONE_ENABLED"]
    await client.call("pool.remove_repository", the_pool(pool), one)
    await client.call("Repository.forget", one)


async def test_the_password_of_the_repositories_proxy_is_a_secret(pool: Pool, client: Client) -> None:
    await client.call("pool.configure_repository_proxy", the_pool(pool), "http://proxy:3128", "me", "word")
    secret = pool.row("pool", the_pool(pool))["repository_proxy_password"]
    assert pool.row("secret", secret)["value"] == "word"
    await client.call("pool.disable_repository_proxy", the_pool(pool))
    assert pool.row("pool", the_pool(pool))["repository_proxy_password"] == NULL
    assert pool.row("secret", secret) is None


@pytest.mark.parametrize("url", ["x", "ftp://a:1", "http://", "http://a:b"])
async def test_what_is_no_proxy_is_refused(pool: Pool, client: Client, url: str) -> None:
    refusal = await client.refusal("pool.configure_repository_proxy", the_pool(pool), url, "", "")
    assert refusal == ["INVALID_REPOSITORY_PROXY_URL", url]


# ---- VMs


async def test_what_an_operation_is_blocked_for_shows_at_once(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.add_to_blocked_operations", vm, "start", "because")
    assert "start" not in await client.call("VM.get_allowed_operations", vm)
    await client.call("VM.remove_from_blocked_operations", vm, "start")
    assert "start" in await client.call("VM.get_allowed_operations", vm)


async def test_bios_strings_are_set_once_and_completed(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    assert await client.refusal("VM.set_bios_strings", vm, {"frob": "x"}) == ["INVALID_VALUE", "frob", "x"]
    await client.call("VM.set_bios_strings", vm, {"bios-vendor": "x"})
    strings = pool.row("VM", vm)["bios_strings"]
    assert (strings["bios-vendor"], strings["system-manufacturer"]) == ("x", "Xen")
    assert await client.refusal("VM.set_bios_strings", vm, {}) == ["VM_BIOS_STRINGS_ALREADY_SET"]


async def test_settings_that_a_running_guest_would_have_to_follow_are_refused(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.set_xenstore_data", vm, {"vm-data/a": "b"})
    await client.call("VM.start", vm, False, False)
    assert (await client.refusal("VM.set_xenstore_data", vm, {}))[0] == "NOT_IMPLEMENTED"
    assert pool.row("VM", vm)["xenstore_data"] == {"vm-data/a": "b"}
    low, high = (pool.row("VM", vm)[f"memory_dynamic_{end}"] for end in ("min", "max"))
    await client.call("VM.set_memory_dynamic_range", vm, low, high)
    assert (await client.refusal("VM.set_memory_dynamic_range", vm, low - (1 << 20), high))[0] == "NOT_IMPLEMENTED"


@pytest.mark.parametrize("value", [0.5, "nan", "inf", -1.0])
async def test_a_shadow_multiplier_is_one_or_more(pool: Pool, client: Client, value: Any) -> None:
    vm = await pool.vm(client)
    assert (await client.refusal("VM.set_HVM_shadow_multiplier", vm, value))[:2] == ["INVALID_VALUE", "multiplier"]


async def test_the_largest_memory_that_fits(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    total = 1 << 30
    largest = await client.call("VM.maximise_memory", vm, total, False)
    assert 0 < largest < total
    assert largest % (1 << 20) == 0
    assert await client.call("VM.maximise_memory", vm, 1, True) == 0


async def test_a_vm_that_nothing_saves_the_memory_of_says_so_first(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    assert await client.refusal("VM.suspend", vm) == ["VM_BAD_POWER_STATE", vm, "running", "halted"]
    await pool.write(Update(cls="pool", ref=the_pool(pool), fields={"suspend_image_SR": NULL}))
    await client.call("VM.start", vm, False, False)
    assert await client.refusal("VM.suspend", vm) == ["VM_NO_SUSPEND_SR", vm]


async def test_a_control_domain_cannot_be_reset(pool: Pool, client: Client) -> None:
    domain = pool.row("host", pool.host_ref(0))["control_domain"]
    assert await client.refusal("VM.power_state_reset", domain) == ["CANNOT_RESET_CONTROL_DOMAIN", domain]


# ---- VIFs


@pytest.mark.parametrize(("version", "address"), [(4, "10.0.0.1"), (6, "fe80::1")])
async def test_addresses_that_a_vif_may_use(pool: Pool, client: Client, version: int, address: str) -> None:
    _, ref = await vif(pool, client)
    field = f"ipv{version}_allowed"
    await client.call(f"VIF.add_{field}", ref, address)
    await client.call(f"VIF.add_{field}", ref, address)
    assert pool.row("VIF", ref)[field] == [address]
    assert await client.refusal(f"VIF.set_{field}", ref, ["x"]) == ["INVALID_IP_ADDRESS_SPECIFIED", field]
    await client.call(f"VIF.remove_{field}", ref, address)
    assert pool.row("VIF", ref)[field] == []


async def test_an_attached_vif_is_left_alone(pool: Pool, client: Client) -> None:
    vm, ref = await vif(pool, client)
    await client.call("VM.start", vm, False, False)
    for message, value in (("set_locking_mode", "locked"), ("set_ipv4_allowed", []), ("set_trunks", [1])):
        assert (await client.refusal(f"VIF.{message}", ref, value))[0] == "NOT_IMPLEMENTED"


async def test_devices_have_metrics_that_go_with_them(pool: Pool, client: Client) -> None:
    _, ref = await vif(pool, client)
    metrics = pool.row("VIF", ref)["metrics"]
    assert pool.row("VIF_metrics", metrics) is not None
    await client.call("VIF.destroy", ref)
    assert pool.row("VIF_metrics", metrics) is None


async def test_a_device_whose_metrics_are_lost_can_be_destroyed(pool: Pool, client: Client) -> None:
    _, ref = await vif(pool, client)
    await pool.write(Delete(cls="VIF_metrics", ref=pool.row("VIF", ref)["metrics"]))
    await client.call("VIF.destroy", ref)
    assert pool.row("VIF", ref) is None


# ---- networks


@pytest.mark.parametrize("bridge", ["xenbr9", "xapi9", "vif9", "tap9", "eth9", "longer-than-the-kernel-takes"])
async def test_names_of_bridges_that_are_not_the_clients_to_choose(pool: Pool, client: Client, bridge: str) -> None:
    record = {"name_label": "n", "other_config": {}, "bridge": bridge}
    assert await client.refusal("network.create", record) == ["INVALID_VALUE", "bridge", bridge]


async def test_a_network_without_mtu_gets_the_usual_one(pool: Pool, client: Client) -> None:
    ref = await client.call("network.create", {"name_label": "n", "other_config": {}, "MTU": 0})
    assert pool.row("network", ref)["MTU"] == 1500


async def test_disks_are_served_encrypted_everywhere_or_nowhere(pool: Pool, client: Client) -> None:
    one, other = [
        await client.call("network.create", {"name_label": name, "other_config": {}}) for name in ("one", "other")
    ]
    await client.call("network.add_purpose", one, "nbd")
    assert await client.refusal("network.add_purpose", other, "insecure_nbd") == [
        "NETWORK_INCOMPATIBLE_PURPOSES",
        "insecure_nbd",
        "nbd",
    ]


# ---- hosts


async def test_what_keeps_a_host_from_being_evacuated(pool: Pool, client: Client) -> None:
    host = pool.host_ref(0)
    await client.call("host.assert_can_evacuate", host)
    await client.call("host.evacuate", host)
    vm = await pool.vm(client)
    await client.call("VM.start_on", vm, host, False, False)
    await client.call("host.disable", pool.host_ref(1))
    assert await client.call("host.get_vms_which_prevent_evacuation", host) == {vm: ["NO_HOSTS_AVAILABLE", vm]}
    assert await client.refusal("host.evacuate", host) == ["NO_HOSTS_AVAILABLE", vm]
    assert await client.refusal("host.assert_can_evacuate", host) == [
        "CANNOT_EVACUATE_HOST",
        f"NO_HOSTS_AVAILABLE,{vm}",
    ]


async def test_a_live_host_is_neither_declared_dead_nor_woken_nor_destroyed(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    for message in ("host.declare_dead", "host.power_on", "host.destroy"):
        assert await client.refusal(message, host) == ["HOST_IS_LIVE", host]


async def test_vms_of_a_host_that_is_declared_dead_are_halted(pool: Pool, client: Client) -> None:
    vm, host = await pool.vm(client), pool.host_ref(1)
    await client.call("VM.start_on", vm, host, False, False)
    await lose(pool, 1)
    await client.call("host.declare_dead", host)
    assert pool.row("VM", vm)["power_state"] == "Halted"


async def test_a_host_that_nobody_knows_is_offline_to_what_it_would_answer_itself(pool: Pool, client: Client) -> None:
    assert await client.refusal("host.get_servertime", "OpaqueRef:x") == ["HOST_OFFLINE", "OpaqueRef:x"]
    assert await client.refusal("host.call_plugin", pool.host_ref(0), "p", "f", {}) == ["XENAPI_MISSING_PLUGIN", "p"]


async def test_clients_that_have_logged_in_are_known_by_version(pool: Pool, client: Client) -> None:
    pool.api.clients.note("xo/5.1 (something)")
    pool.api.clients.note("not a version")
    assert (await client.call("host.get_tracked_user_agents", pool.host_ref(0)))["xo"] == "5.1"
    assert await client.call("host.get_tracked_user_agents", pool.host_ref(1)) == {}


# ---- the pool


async def test_what_every_edition_has_is_not_restricted(pool: Pool, client: Client) -> None:
    restrictions = await client.call("pool.get_restrictions", the_pool(pool))
    assert restrictions["restrict_rbac"] == "false"
    assert restrictions["enable_xha"] == "true"


async def test_without_protected_vms_every_plan_holds(pool: Pool, client: Client) -> None:
    assert await client.call("pool.ha_compute_max_host_failures_to_tolerate") == 2
    assert await client.call("pool.ha_failover_plan_exists", 2)
    assert not await client.call("pool.ha_failover_plan_exists", 3)
    await pool.vm(client, ha_always_run=True, ha_restart_priority="restart")
    assert (await client.refusal("pool.ha_failover_plan_exists", 1))[0] == "NOT_IMPLEMENTED"
    assert await client.refusal("pool.disable_ha") == ["HA_NOT_ENABLED"]


async def test_what_keeps_updates_away(pool: Pool, client: Client) -> None:
    assert await client.call("pool.check_update_readiness", the_pool(pool), False) == []
    await lose(pool, 1)
    assert await client.call("pool.check_update_readiness", the_pool(pool), False) == [
        ["HOST_OFFLINE", pool.host_ref(1)]
    ]


async def test_certificates_that_are_none_are_refused_as_such(pool: Pool, client: Client) -> None:
    assert await client.refusal("pool.install_ca_certificate", "x", "not pem") == ["CA_CERTIFICATE_INVALID"]
    assert await client.refusal("pool.crl_uninstall", "../x") == ["CRL_NAME_INVALID", "../x"]
    assert await client.refusal("pool.crl_uninstall", "x.pem") == ["CRL_DOES_NOT_EXIST", "x.pem"]


async def test_hosts_do_not_log_in(pool: Pool, client: Client) -> None:
    assert (await error_code(client, "session.slave_login", "OpaqueRef:x", "secret")) == "SESSION_AUTHENTICATION_FAILED"
    assert (await error_code(client, "session.slave_local_login", "secret")) == "SESSION_AUTHENTICATION_FAILED"


async def error_code(client: Client, method: str, *params: Any) -> str:

    return (await error_of(client.raw(method, *params)))[0]
